"""Writes a mask or probabilities as NIfTI."""

import gzip
import os

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from ..files import atomic

SCANNER = 1  # NIfTI's NIFTI_XFORM_SCANNER_ANAT: world coordinates are the scanner's
ROUNDING = 1e-5  # rounding error of interpolated probabilities
STEPS = 255  # uint8 levels of a probability; rounding 0.5 x 255 to even keeps "at least 0.5" exact


def write_nifti(array: np.ndarray, affine: np.ndarray, path: str | os.PathLike) -> None:
    """Writes `array` atomically as gzipped NIfTI-1; the same array gives the same bytes.

    Args:
        array: (X, Y, Z); a mask (bool or integers, 0 and 1), stored as uint8; or probabilities (floats, 0 to 1), stored
            as uint8 with `scl_slope` 1/255. The error is below 0.002; a value of at least 0.5 stays at least 0.5.
        affine: (4, 4), voxel indices to RAS millimetres; written as sform and qform, both of code 1. A sheared affine
            gets qform code 0.
        path: the file, `.nii.gz`.

    Raises:
        OSError: the file cannot be written.
        ValueError: values outside 0 to 1.
    """
    if not (array.min() >= -ROUNDING and array.max() <= 1 + ROUNDING):  # also refuses nan
        raise ValueError(f"values {array.min():g} to {array.max():g}: expected a mask or probabilities, 0 to 1.")
    floating = np.issubdtype(array.dtype, np.floating)
    stored = _steps(array) if floating else array.astype(np.uint8, copy=False)
    image = nib.Nifti1Image(stored, affine)
    image.set_sform(affine, SCANNER)
    try:
        image.set_qform(affine, SCANNER, strip_shears=False)
    except HeaderDataError:
        image.set_qform(affine, 0)
    image.header.set_xyzt_units("mm")
    image.header.set_slope_inter(1 / STEPS if floating else 1, 0)
    with atomic(path) as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as compressed:
        image.to_stream(compressed)


def _steps(probabilities: np.ndarray) -> np.ndarray:
    stored = np.empty(probabilities.shape, np.uint8)
    for plane, result in zip(probabilities, stored):  # plane by plane, to save memory
        result[...] = np.rint(plane * np.float32(STEPS))
    return stored
