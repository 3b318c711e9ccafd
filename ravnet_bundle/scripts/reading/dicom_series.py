"""From one DICOM series to its grid and HU, or to one line that says why not.

The grid comes from ImagePositionPatient and ImageOrientationPatient, not from SliceThickness or SpacingBetweenSlices.
pydicom decodes uncompressed and RLE pixels; ITK decodes JPEG, JPEG Lossless, JPEG-LS and JPEG 2000, with rescale.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydicom import Dataset, uid

from ..geometry import LPS
from .checks import check_claim, check_shape
from .dicom_decompress import Decoder
from .dicom_grouping import tolerance, trouble
from .dicom_slice import Slice, as_slice, dataset, quiet_pydicom, read_slice
from .dicom_zip import Member
from .errors import CTError, one_line, one_reason
from .hounsfield import PADDING
from .scan import Header, Scan

BY_PYDICOM = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless)
JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
BY_ITK = (*JPEG, uid.JPEGLSLossless, uid.JPEGLSNearLossless, uid.JPEG2000Lossless, uid.JPEG2000)
# ITK inverts the values of MONOCHROME1. But HU do not depend on how a slice is shown.
NO_INVERSION = (b"\x28\0\x04\0CS\x0c\0MONOCHROME1 ", b"\x28\0\x04\0CS\x0c\0MONOCHROME2 ", 1)
PADDED_BELOW = -900.0  # HU; a PixelPaddingValue above it may be tissue and is ignored


def header(scan: Scan) -> Header:
    """A series' grid. Raises `CTError` unless its files, in slice order, are one evenly spaced volume."""
    source = scan.label
    slices = scan.slices or tuple(_slice(file) for file in scan.files)
    first = slices[0]
    if any(one.multiframe for one in slices):
        raise CTError(
            f"{source}: enhanced multiframe DICOM; convert it to one file a slice, e.g. with dcm4che's emf2sf."
        )
    if any(not one.position or not one.directions for one in slices):
        raise CTError(f"{source}: slices without ImagePositionPatient or ImageOrientationPatient cannot be placed.")
    if any(not one.spacing for one in slices):
        raise CTError(f"{source}: slices without PixelSpacing have no size; export the series again.")
    if min(min(one.spacing) for one in slices) <= 0:
        raise CTError(f"{source}: PixelSpacing is zero or negative; export the series again.")
    for what, values in (
        ("pixel size in bits", [one.bits for one in slices]),
        ("matrix size", [one.shape for one in slices]),
        ("pixel spacing", [one.spacing for one in slices]),
        ("orientation", [one.directions for one in slices]),
    ):
        if not np.allclose(values, values[0], rtol=0, atol=1e-3):
            raise CTError(f"{source}: slices of more than one {what}; give the slices of one reconstruction.")
    if not all(one.rescaled for one in slices):
        raise CTError(f"{source}: RescaleType is not HU; give the CT itself, not a map computed from it.")
    shape = (*first.shape, len(slices))
    check_shape(shape, source)
    for one in slices:
        _check_pixels(one)
    lossy = ("the series was compressed with loss",) if any(one.lossy for one in slices) else ()
    return Header(shape, _affine(slices, source), lossy, slices)


def _slice(file: Path | Member) -> Slice:
    found = read_slice(file)
    if isinstance(found, str):
        raise CTError(f"{file}: not a CT slice: {found}.")
    return found


def _check_pixels(one: Slice) -> None:
    if one.syntax not in (*BY_PYDICOM, *BY_ITK):
        raise CTError(f"{one.file}: transfer syntax {one_line(one.syntax.name)} is not read; decompress it first.")
    claimed = math.prod(one.shape) * one.bits // 8
    check_claim(claimed, one.file.stat().st_size, one.syntax.is_encapsulated, one.file)


def _affine(slices: Sequence[Slice], source: str) -> np.ndarray:
    """Voxel index to RAS world. The third axis is the step from slice to slice, so a tilted gantry shows as shear.

    `highdicom.spatial` is not used: its errors do not name the fault of a series and its place. These messages do.
    """
    row, column = np.split(np.asarray(slices[0].directions), 2)
    lengths = np.linalg.norm([row, column], axis=1)
    if not np.allclose(lengths, 1, atol=0.01):
        raise CTError(f"{source}: ImageOrientationPatient is not two directions of length 1; export the series again.")
    positions = np.asarray([one.position for one in slices])
    gaps = np.diff(positions @ np.cross(row, column))
    if np.ptp(gaps) > tolerance(gaps) or gaps.min() <= 0:
        found = f" ({where})" if (where := trouble(slices)) else ""
        raise CTError(
            f"{source}: slices {gaps.min():.2f} to {gaps.max():.2f} mm apart: missing, doubled or unevenly "
            f"spaced{found}; give one evenly spaced series."
        )
    step = (positions[-1] - positions[0]) / (len(slices) - 1)
    aside = np.linalg.norm(positions - positions[0] - np.outer(np.arange(len(slices)), step), axis=1).max()
    if aside > 1:
        raise CTError(f"{source}: slices lie up to {aside:.1f} mm off one line; give the slices of one reconstruction.")
    affine = np.eye(4)
    affine[:3, 0] = row / lengths[0] * slices[0].spacing[0]
    affine[:3, 1] = column / lengths[1] * slices[0].spacing[1]
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    return LPS @ affine


def planes(scan: Scan, found: Header) -> Iterator[np.ndarray]:
    """The slices (X, Y) in HU. Raises `CTError` if one cannot be decoded."""
    shape = found.shape[1], found.shape[0]
    with Decoder() as decode:
        for known in found.layout:
            file = known.file
            with one_reason(file):
                content = file.read_bytes()
            one = dataset(file, content)
            with quiet_pydicom(file, "damaged or truncated pixels"):
                if "PixelData" not in one:
                    raise ValueError("no pixels")
                now = as_slice(file, one)
                if isinstance(now, str) or now._replace(patient=known.patient) != known:
                    raise CTError(f"{file}: the file changed during reading; start again.")
                scale = float(one.get("RescaleSlope", 1)), float(one.get("RescaleIntercept", 0))
                packed = known.syntax in BY_ITK
                plane = decode(content.replace(*NO_INVERSION), shape) if packed else _by_pydicom(one, *scale)
                if plane.shape != shape:
                    raise ValueError("another size than announced")
                _mark_padding(plane, one, *scale)
            yield plane.T


def _by_pydicom(one: Dataset, slope: float, intercept: float) -> np.ndarray:
    stored = one.pixel_array
    if not one.file_meta.TransferSyntaxUID.is_encapsulated and len(one.PixelData) > stored.nbytes + 1:
        raise ValueError("more pixels than announced")
    return stored.astype(np.float32) * slope + intercept


def _mark_padding(plane: np.ndarray, one: Dataset, slope: float, intercept: float) -> None:
    """Sets the pixels of PixelPaddingValue to the padding that `Hounsfield` knows."""
    if (padding := one.get("PixelPaddingValue")) is None:
        return
    kind = np.dtype(f"{'iu'[one.PixelRepresentation == 0]}{one.BitsAllocated // 8}")  # writers confuse the sign
    limits = np.asarray([padding, one.get("PixelPaddingRangeLimit", padding)]).astype(kind) * slope + intercept
    if limits.max() < PADDED_BELOW:
        plane[(plane > limits.min() - abs(slope) / 2) & (plane < limits.max() + abs(slope) / 2)] = PADDING
