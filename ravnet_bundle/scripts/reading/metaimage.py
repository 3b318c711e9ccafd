"""NRRD and MetaImage: the header's geometry by ITK, the voxels by `stream`.

ITK does not read the voxels: on a damaged file it may raise no error and return random memory.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

import itk
import numpy as np

from ..geometry import LPS
from . import stream
from .checks import check_claim, check_shape, doubts_about
from .errors import CTError, one_reason
from .scan import Header, Scan
from .stored import stored

SKIP = 2**26  # most bytes before the voxels
SPACES = ("left-posterior-superior", "left-anterior-superior", "right-anterior-superior", "lps", "las", "ras")  # NRRD's
UNSTATED = "The header states no orientation: axes may be mirrored."


def header(scan: Scan) -> Header:
    """A header's shape and affine. Raises `CTError` if it is damaged, no CT, or claims more than the file holds."""
    path = scan.source
    nrrd = path.suffix.lower() == ".nrrd"
    with one_reason(path):
        where, fields = stored(path)
        found = (itk.NrrdImageIO if nrrd else itk.MetaImageIO).New()
        found.SetFileName(str(path))
        found.ReadImageInformation()
        axes = range(found.GetNumberOfDimensions())
        shape = tuple(int(found.GetDimensions(axis)) for axis in axes)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        check_shape(shape, path)
        if found.GetNumberOfComponents() != 1:
            raise CTError(f"{path}: {found.GetNumberOfComponents()} values a voxel are not HU; give a CT of one.")
        dtype = _dtype(found, _big_endian(found, fields, nrrd))
        claimed = math.prod(shape) * dtype.itemsize
        held = os.path.getsize(where.file) - max(0, where.offset)
        if where.skip + max(0, where.offset) > SKIP:
            raise CTError(f"{path}: the header places the voxels after byte {SKIP}; damaged, export it again.")
        packed = where.packing != "raw"
        check_claim(claimed + where.skip, held, packed, path)
        affine = np.eye(4)
        for axis in range(3):
            affine[:3, axis] = np.asarray(found.GetDirection(axis))[:3] * found.GetSpacing(axis)
            affine[axis, 3] = found.GetOrigin(axis)
        doubts = doubts_about(affine) or (() if _stated(fields, nrrd) else (UNSTATED,))
        return Header(shape, LPS @ affine, layout=(where, dtype), doubts=doubts)


def planes(scan: Scan, found: Header) -> Iterator[np.ndarray]:
    """The slices (X, Y). Raises `CTError` if there are fewer or more than claimed, or they are damaged."""
    where, dtype = found.layout
    with one_reason(scan.source, "damaged or truncated voxels"):
        yield from stream.planes(where, dtype, found.shape)


def _dtype(found: itk.ImageIOBase, big_endian: bool) -> np.dtype:
    name = found.GetComponentTypeAsString(found.GetComponentType())
    kind = "f" if name in ("float", "double") else "u" if name.startswith("unsigned") else "i"
    return np.dtype(f"{'<>'[big_endian]}{kind}{found.GetComponentSize()}")


def _big_endian(found: itk.ImageIOBase, fields: dict[str, str], nrrd: bool) -> bool:
    if nrrd:
        return found.GetByteOrder() == itk.CommonEnums.IOByteOrder_BigEndian
    keys = ("binarydatabyteordermsb", "elementbyteordermsb")
    return any(fields.get(key, "")[:1] in ("T", "t", "1") for key in keys)


def _stated(fields: dict[str, str], nrrd: bool) -> bool:
    """Whether the header states the axes' directions."""
    if nrrd:
        return fields.get("space", "").lower() in SPACES and "spacedirections" in fields
    return any(key in fields for key in ("transformmatrix", "rotation", "orientation"))
