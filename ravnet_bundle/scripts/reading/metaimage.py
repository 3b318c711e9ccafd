"""NRRD and MetaImage, by ITK, once their headers' claims have been compared with their files."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

import itk
import numpy as np

from .errors import CTError, one_reason
from .geometry import check_claim, check_shape, doubts_about
from .scan import Header, Scan

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's world is LPS
TEXT = 2**16  # bytes in which a header ends


def header(scan: Scan) -> Header:
    """A header's shape and affine. Raises `CTError` where it is damaged, no CT volume's, or claims more than is there.

    The voxels must be in the file itself or, for .mhd, in one file beside it.
    """
    path = scan.source
    with one_reason(path):
        held, packed = voxels(path)
        found = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
        found.SetFileName(str(path))
        found.ReadImageInformation()
        axes = range(found.GetNumberOfDimensions())
        shape = tuple(int(found.GetDimensions(axis)) for axis in axes)
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        check_shape(shape, path)
        if found.GetNumberOfComponents() != 1:
            raise CTError(f"{path}: {found.GetNumberOfComponents()} values a voxel are not HU; give a CT of one.")
        check_claim(math.prod(shape) * found.GetComponentSize(), os.path.getsize(held), packed, path)
        affine = np.eye(4)
        for axis in range(3):
            affine[:3, axis] = np.asarray(found.GetDirection(axis))[:3] * found.GetSpacing(axis)
            affine[axis, 3] = found.GetOrigin(axis)
        return Header(shape, TO_RAS @ affine, doubts=doubts_about(affine))


def planes(scan: Scan, found: Header) -> Iterator[np.ndarray]:
    """The slices (X, Y). Raises `CTError` where the voxels cannot be read."""
    with one_reason(scan.source):
        volume = itk.array_view_from_image(itk.imread(str(scan.source)))
        for plane in volume.reshape(found.shape[::-1]):
            yield plane.T


def voxels(path: Path) -> tuple[Path, bool]:
    """The file that holds the voxels, and whether they are packed, by the header alone."""
    with open(path, "rb") as file:
        text = file.read(TEXT).decode("latin-1")
    if path.suffix.lower() == ".nrrd":
        if re.search(r"^data ?file\s*:", text, re.I | re.M):
            raise CTError(f"{path}: its voxels are in another file; write header and voxels as one .nrrd.")
        return path, not re.search(r"^encoding\s*:\s*raw", text, re.I | re.M)
    packed = re.search(r"^CompressedData\s*=\s*true", text, re.I | re.M) is not None
    named = re.search(r"^ElementDataFile\s*=\s*(\S.*?)\s*$", text, re.I | re.M)
    if named and named[1].upper() == "LOCAL":
        return path, packed
    if not named or path.suffix.lower() == ".mha" or not re.fullmatch(r"[^/\\:%]+", named[1]) or named[1] == "LIST":
        raise CTError(f"{path}: its voxels are not in one file beside it; write it as .mha or .nii.gz.")
    held = path.parent / named[1]
    if not held.is_file():
        raise CTError(f"{path}: the file of its voxels, {named[1]}, is missing; copy it to the same folder.")
    return held, packed
