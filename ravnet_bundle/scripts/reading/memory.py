"""A CT in memory: an image of nibabel, SimpleITK or MONAI, or an array with its affine."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from . import nifti
from .checks import check_shape, doubts_about
from .errors import CTError
from .scan import Header, Scan

NAME = Path("image")  # in messages
KINDS = "a path, a nibabel or SimpleITK image, a MetaTensor, or an array with its affine"


def is_simpleitk(image: Any) -> bool:
    """Whether it is a SimpleITK image; SimpleITK is not imported."""
    package = sys.modules.get("SimpleITK")
    return package is not None and isinstance(image, package.Image)


def in_memory(image: Any) -> Scan:
    """A CT in memory as a `Scan`: it is checked like one in a file.

    Raises:
        TypeError: an unknown kind of image.
    """
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] | None = None
    if isinstance(image, nib.Nifti1Image):
        voxels = image.dataobj
        own = type(image)(image.dataobj, image.affine, image.header)  # its header holds the affine
        affine, notes, doubts = nifti.affine_of(own.header, NAME)
    elif isinstance(image, nib.spatialimages.SpatialImage):
        voxels, affine = image.dataobj, image.affine
    elif is_simpleitk(image):
        voxels, affine = sys.modules["SimpleITK"].GetArrayViewFromImage(image).T, _affine(image)
    elif hasattr(image, "affine") and hasattr(image, "meta"):  # a MetaTensor; MONAI takes long to import
        voxels, affine = image.detach().cpu().numpy(), image.affine.cpu()
        voxels = voxels[0] if voxels.ndim == 4 and len(voxels) == 1 else voxels
    elif isinstance(image, tuple) and len(image) == 2:
        voxels, affine = (np.asarray(part) for part in image)
    else:
        raise TypeError(f"{type(image).__name__} is not a CT: give {KINDS}.")
    affine = np.eye(4) if affine is None else np.asarray(affine, dtype=float)
    if doubts is None:
        doubts = doubts_about(affine) if affine.shape == (4, 4) else ()
    return Scan("image", NAME, (), "memory", image=Header(tuple(voxels.shape), affine, notes, voxels, doubts))


def header(scan: Scan) -> Header:
    """The image's header. Raises `CTError` if it is no CT volume."""
    found = scan.image
    check_shape(found.shape, scan.source)
    if found.affine.shape != (4, 4):
        raise CTError(f"{scan.source}: an affine of shape {found.affine.shape}: give 4 x 4, voxels to RAS millimetres.")
    if found.layout.dtype.kind not in "iuf":
        raise CTError(f"{scan.source}: {found.layout.dtype} voxels are not HU; give whole or floating-point numbers.")
    return found


def planes(scan: Scan, found: Header) -> Iterator[np.ndarray]:
    """The slices (X, Y), one after the other."""
    voxels = np.asanyarray(found.layout)
    return (voxels[..., z] for z in range(found.shape[2]))


def _affine(image: Any) -> np.ndarray:
    """The affine of a SimpleITK image, from LPS to RAS."""
    size = image.GetDimension()
    affine = np.eye(size + 1)
    affine[:size, :size] = np.reshape(image.GetDirection(), (size, size)) * image.GetSpacing()
    affine[:size, size] = image.GetOrigin()
    return np.diag([-1, -1, *[1] * (size - 1)]) @ affine
