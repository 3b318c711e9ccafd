"""A mask or probabilities as NIfTI, on the grid of the volume that they belong to."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from ..files import atomic

SCANNER = 1  # NIfTI's NIFTI_XFORM_SCANNER_ANAT: world coordinates are the scanner's
ROUNDING = 1e-5  # how far an interpolation between probabilities may overstep them
STEPS = 255  # uint8 levels of a probability; an even rounding of 0.5 x 255 keeps "at least 0.5" exact


def write_nifti(array: np.ndarray, affine: np.ndarray, path: str | os.PathLike) -> None:
    """Writes `array` as NIfTI-1, gzip-compressed if `path` ends in `.gz`, atomically and with the same bytes each time.

    Args:
        array: (X, Y, Z); a mask (bool or integers, 0 and 1), stored as uint8, or probabilities (floats, 0 to 1), stored
            as uint8 with `scl_slope` 1/255: within 0.002 of what was given, and at least 0.5 where that was.
        affine: (4, 4), voxel indices to RAS millimetres. sform and qform, both of code 1, hold it; a sheared one, which
            no qform can hold, has qform code 0.

    Raises:
        OSError: a file that cannot be written.
        ValueError: values outside 0 to 1.
    """
    if not (array.min() >= -ROUNDING and array.max() <= 1 + ROUNDING):  # not a number is neither
        raise ValueError(f"values {array.min():g} to {array.max():g}: expected a mask or probabilities, 0 to 1.")
    floating = np.issubdtype(array.dtype, np.floating)
    stored = _steps(array) if floating else array.astype(np.uint8, copy=False)
    header = nib.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(array.shape)
    header.set_sform(affine, SCANNER)
    try:
        header.set_qform(affine, SCANNER, strip_shears=False)
    except HeaderDataError:
        header.set_qform(affine, 0, strip_shears=True)
    header.set_xyzt_units("mm")
    image = nib.Nifti1Image(stored, None, header)
    image.header.set_slope_inter(1 / STEPS if floating else 1, 0)  # which an image forgets of the header given to it
    with atomic(path) as file:
        if Path(path).suffix == ".gz":
            with gzip.GzipFile("", "wb", 6, file, mtime=0) as compressed:
                image.to_stream(compressed)
        else:
            image.to_stream(file)


def _steps(probabilities: np.ndarray) -> np.ndarray:
    stored = np.empty(probabilities.shape, np.uint8)
    for plane, result in zip(probabilities, stored):  # plane by plane: no second volume of floats
        result[...] = np.rint(plane * np.float32(STEPS))
    return stored
