"""Geometry of volumes and masks, each thing once: axes, spacing, boxes, components, morphology."""

from __future__ import annotations

import math
from collections.abc import Sequence

import nibabel as nib
import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import distance_transform_edt, generate_binary_structure, label

Box = tuple[slice, ...]


def spacing_of(affine: ArrayLike) -> np.ndarray:
    """Distance of neighbouring voxels along each axis, (3,), in mm, of an affine (4, 4) from index to world."""
    return nib.affines.voxel_sizes(np.asarray(affine, dtype=float))


def axes_of(affine: ArrayLike) -> tuple[list[int], list[bool]]:
    """Which axis of the array runs along R, A and S, (3,), and whether it runs the other way, (3,)."""
    orientation = nib.orientations.io_orientation(np.asarray(affine, dtype=float))
    axes = [int(np.flatnonzero(orientation[:, 0] == world)[0]) for world in range(3)]
    return axes, [bool(orientation[axis, 1] < 0) for axis in axes]


def axial_axis(affine: ArrayLike) -> int:
    """The axis of the array along which axial slices follow each other."""
    return axes_of(affine)[0][2]


def bounding_box(mask: np.ndarray, margin: int | Sequence[int] = 0) -> Box | None:
    """The smallest box that holds all of a mask, and up to `margin` voxels more on each side; `None` if it is empty."""
    box = []
    for axis, (size, more) in enumerate(zip(mask.shape, np.broadcast_to(margin, mask.ndim).tolist())):
        found = np.flatnonzero(mask.any(axis=tuple({*range(mask.ndim)} - {axis})))
        if not len(found):
            return None
        box.append(slice(max(0, int(found[0]) - more), min(size, int(found[-1]) + 1 + more)))
    return tuple(box)


def components(mask: np.ndarray, corners: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The connected components of a mask: their numbers, 0 outside, and how many voxels each number has, 0 outside.

    Args:
        mask: of any number of axes.
        corners: whether voxels that share no more than a corner are neighbours; else they must share a face.
    """
    parts, _ = label(mask, generate_binary_structure(mask.ndim, mask.ndim if corners else 1))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts, sizes


def largest_component(mask: np.ndarray, corners: bool = True) -> np.ndarray:
    """The largest of a mask's `components`; of an empty mask nothing."""
    parts, sizes = components(mask, corners)
    return (parts == sizes.argmax()) & mask


def eroded(inside: np.ndarray, spacing: np.ndarray, margin_mm: float) -> np.ndarray:
    """The voxels whose centre lies more than `margin_mm` from every centre outside; slab by slab, to bound the memory.

    The border of the array is no border of the mask.
    """
    halo = math.ceil(margin_mm / spacing[2])
    step = max(halo, 2**21 // (inside.shape[0] * inside.shape[1]), 1)
    result = np.empty_like(inside)
    for z in range(0, inside.shape[2], step):
        start = max(0, z - halo)
        slab = inside[..., start : z + step + halo]
        # without any voxel outside, scipy's distances are undefined
        deep = slab if slab.all() else distance_transform_edt(slab, sampling=spacing) > margin_mm
        result[..., z : z + step] = deep[..., z - start : z - start + step]
    return result


def dilated(inside: np.ndarray, spacing: np.ndarray, margin_mm: float) -> np.ndarray:
    """The voxels whose centre lies no more than `margin_mm` from a centre inside."""
    return ~eroded(~inside, spacing, margin_mm)
