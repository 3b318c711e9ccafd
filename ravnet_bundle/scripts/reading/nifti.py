"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped: the header by nibabel, the voxels as a stream.

nibabel's image objects trust the header's sizes, and decompress a gzip again for every part. Here the header's claims
are compared with the file before anything is read.
"""

import gzip
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import nibabel as nib
import numpy as np
from nibabel import imageglobals

from ..geometry import spacing_of
from . import stream
from .checks import check_claim, check_shape, doubts_about
from .errors import CTError, one_reason
from .scan import Header, Scan
from .stream import Stored

EXTENSIONS = 2**26  # most bytes of extensions between header and voxels


class Layout(NamedTuple):
    """Where the voxels are, and how they become HU."""

    offset: int
    dtype: np.dtype
    slope: float
    intercept: float


def open_nifti(path: Path) -> IO[bytes] | gzip.GzipFile:
    return gzip.open(path) if path.name.lower().endswith(".gz") else open(path, "rb")


def header(scan: Scan) -> Header:
    """A NIfTI's header. Raises `CTError` if it is damaged, no CT volume, or claims more than the file can hold.

    The sform is used, else the qform. If both are set, they must agree in axes and spacing.
    """
    path = scan.source
    with one_reason(path), open_nifti(path) as file, imageglobals.LoggingOutputSuppressor():
        block = file.read(nib.Nifti2Header.sizeof_hdr)
        kind = nib.Nifti2Header if nib.Nifti2Header.may_contain_header(block) else nib.Nifti1Header
        found = kind(block[: kind.sizeof_hdr], check=False)
        if not found["sform_code"] and not (found["pixdim"][1:4] > 0).all():  # nibabel would assume 1 mm
            sizes = " x ".join(f"{size:g}" for size in found["pixdim"][1:4])
            raise CTError(f"{path}: pixdim {sizes} is not a spacing, and there is no sform; export it again.")
        found.check_fix()
        if found["magic"].item().rstrip(b"\0") not in (b"n+1", b"n+2"):
            raise CTError(f"{path}: its header is not that of a NIfTI in one file; convert it to .nii.gz.")
        shape = tuple(int(size) for size in found.get_data_shape())
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        check_shape(shape, path)
        dtype = found.get_data_dtype()
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            name = "RGB" if dtype.names else dtype.name
            raise CTError(f"{path}: {name} voxels are not HU; give a CT of whole or floating-point numbers.")
        slope, intercept = found.get_slope_inter()
        layout = Layout(
            int(found["vox_offset"]),
            dtype,
            1.0 if slope is None else float(slope),
            0.0 if intercept is None else float(intercept),
        )
        if not 0 <= layout.offset - kind.sizeof_hdr <= EXTENSIONS:
            raise CTError(f"{path}: the header places the voxels at byte {layout.offset}; damaged, export it again.")
        packed = path.name.lower().endswith(".gz")
        claimed = layout.offset + math.prod(shape) * dtype.itemsize
        check_claim(claimed, os.path.getsize(path), packed, path)
        affine, notes, doubts = affine_of(found, path)
        return Header(shape, affine, notes, layout, doubts)


def affine_of(found: nib.Nifti1Header, path: Path) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """The affine, notes and doubts."""
    affine = found.get_best_affine()
    if not found["sform_code"] and not found["qform_code"]:
        return affine, (), ("The header states no orientation (sform and qform codes 0): axes may be mirrored.",)
    if doubts := doubts_about(affine):
        return affine, (), doubts
    if not found["sform_code"] or not found["qform_code"] or np.allclose(found.get_qform(), affine, atol=0.01):
        return affine, (), ()
    other = found.get_qform()
    names = ["".join(str(code) for code in nib.aff2axcodes(matrix)) for matrix in (affine, other)]
    if names[0] != names[1] or not np.allclose(spacing_of(affine), spacing_of(other), rtol=0.01):
        raise CTError(
            f"{path}: sform ({names[0]}) and qform ({names[1]}) disagree in axes or spacing; set the right one in both."
        )
    return affine, ("sform and qform differ: the sform was used",), ()


def planes(scan: Scan, found: Header) -> Iterator[np.ndarray]:
    """The slices (X, Y) of a NIfTI in HU. Raises `CTError` if the file ends early."""
    path, layout = scan.source, found.layout
    where = Stored(path, "gzip" if path.name.lower().endswith(".gz") else "raw", skip=layout.offset, exact=False)
    with one_reason(path):
        for plane in stream.planes(where, layout.dtype, found.shape):
            scaled = (layout.slope, layout.intercept) != (1, 0)
            yield plane * layout.slope + layout.intercept if scaled else plane
