"""Writes a mask as NIfTI, DICOM SEG, RTSTRUCT, SR or a mesh, and the manifest of a study's files.

Files are written atomically. The same mask, series and software give the same bytes: no clock is read, DICOM dates are
those of the source series, and UIDs are hashes.
"""

from .dicom_rtstruct import write_rtstruct
from .dicom_seg import write_seg
from .dicom_source import Software, Unwritable
from .dicom_sr import write_sr
from .manifest import complete, write_manifest
from .mesh import write_mesh
from .nifti_writer import write_nifti

__all__ = [
    "Software", "Unwritable", "complete", "write_manifest", "write_mesh", "write_nifti", "write_rtstruct", "write_seg",
    "write_sr",
]  # fmt: skip
