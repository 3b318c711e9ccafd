"""A mask out: NIfTI, DICOM SEG, RTSTRUCT, SR, a mesh, and the manifest that says they are complete.

Every file is atomic, and a function of what is in it: the same mask, series and software give the same bytes. So no
clock is read; DICOM dates are the source series's own, and UIDs are hashes.
"""

from __future__ import annotations

from .dicom_rtstruct import write_rtstruct
from .dicom_seg import write_seg
from .dicom_source import Unwritable
from .dicom_sr import write_sr
from .manifest import complete, write_manifest
from .mesh import write_mesh
from .nifti_writer import write_nifti

__all__ = [
    "Unwritable", "complete", "write_manifest", "write_mesh", "write_nifti", "write_rtstruct", "write_seg", "write_sr",
]  # fmt: skip
