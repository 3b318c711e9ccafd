"""Geometry of volumes and masks: axes, spacing, boxes, components, morphology, expected overlap."""

import math
from collections.abc import Sequence

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import io_orientation
from numpy.typing import ArrayLike

SLAB = 2**21  # voxels in one step; they fit into the processor's cache
FAINT = 0.05  # smaller probabilities are left out of all sums, so that these do not grow with the field of view

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # from LPS (the world of DICOM and ITK) to RAS, and back

Box = tuple[slice, ...]


def spacing_of(affine: ArrayLike) -> np.ndarray:
    """Distance of neighbouring voxels along each axis, (3,), in mm, of an affine (4, 4) from index to world."""
    return voxel_sizes(np.asarray(affine, dtype=float))


def axes_of(affine: ArrayLike) -> tuple[list[int], list[bool]]:
    """Which axis of the array runs along R, A and S, (3,), and whether it runs the other way, (3,)."""
    orientation = io_orientation(np.asarray(affine, dtype=float))
    axes = [int(np.flatnonzero(orientation[:, 0] == world)[0]) for world in range(3)]
    return axes, [bool(orientation[axis, 1] < 0) for axis in axes]


def axial_axis(affine: ArrayLike) -> int:
    """The axis of the array along which axial slices follow each other."""
    return axes_of(affine)[0][2]


def bounding_box(mask: np.ndarray, margin: int | Sequence[int] = 0) -> Box | None:
    """The smallest box that holds all of a mask, and up to `margin` voxels more on each side; `None` if it is empty."""
    box = [slice(None)] * mask.ndim
    for axis in reversed(range(mask.ndim)):  # slices first, as they lie in memory; the other axes only within these
        found = np.flatnonzero(mask[tuple(box)].any(axis=tuple({*range(mask.ndim)} - {axis})))
        if not len(found):
            return None
        box[axis] = slice(int(found[0]), int(found[-1]) + 1)
    wider = zip(box, mask.shape, np.broadcast_to(margin, mask.ndim).tolist())
    return tuple(slice(max(0, side.start - more), min(size, side.stop + more)) for side, size, more in wider)


def components(mask: np.ndarray, corners: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The connected components of a mask: their numbers, 0 outside, and how many voxels each number has, 0 outside.

    Args:
        mask: of any number of axes.
        corners: True: voxels that share a corner are connected (in 3D, 26-neighbourhood). False: only voxels that share
            a face.
    """
    from scipy.ndimage import generate_binary_structure, label  # takes 0.1 s, and reading does not need it

    parts, _ = label(mask, generate_binary_structure(mask.ndim, mask.ndim if corners else 1))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts, sizes


def largest_component(mask: np.ndarray, corners: bool = True) -> np.ndarray:
    """The largest of a mask's `components`; of an empty mask nothing."""
    parts, sizes = components(mask, corners)
    return (parts == sizes.argmax()) & mask


def expected_dice(p: np.ndarray, mask: np.ndarray) -> float:
    """The Dice of a mask that is expected from probabilities on its grid."""
    p = np.where(p < FAINT, 0, p)
    both = float(p.sum(dtype=np.float64)) + int(np.count_nonzero(mask))
    return 2 * float(p[mask].sum(dtype=np.float64)) / both


def eroded(inside: np.ndarray, spacing: np.ndarray, margin_mm: float) -> np.ndarray:
    """Erosion by a ball: voxels with a centre more than `margin_mm` from every centre outside.

    The border of the array is not a border of the mask.

    Args:
        inside: bool, `(X, Y, Z)`.
        spacing: of the voxels, mm.
        margin_mm: radius of the ball.
    """
    halo = math.ceil(margin_mm / spacing[2])
    step = max(halo, SLAB // (inside.shape[0] * inside.shape[1]), 1)
    result = np.empty_like(inside)
    for z in range(0, inside.shape[2], step):
        start = max(0, z - halo)
        near = _near(~inside[..., start : z + step + halo], spacing, margin_mm)
        np.logical_not(near[..., z - start : z - start + step], out=result[..., z : z + step])
    return result


def dilated(inside: np.ndarray, spacing: np.ndarray, margin_mm: float) -> np.ndarray:
    """Dilation by a ball: voxels with a centre at most `margin_mm` from a centre inside."""
    return ~eroded(~inside, spacing, margin_mm)


def _near(outside: np.ndarray, spacing: np.ndarray, margin_mm: float) -> np.ndarray:
    """The voxels within `margin_mm` of any outside: dilation by a ball, built from columns along z.

    A distance map would take ten times as long.
    """
    if not outside.any():
        return outside
    i, j, k = np.ogrid[tuple(slice(min(n, int(margin_mm / mm) + 2)) for n, mm in zip(outside.shape, spacing))]
    ball = np.sqrt((i * spacing[0]) ** 2 + (j * spacing[1]) ** 2 + (k * spacing[2]) ** 2) <= margin_mm
    heights = np.count_nonzero(ball, axis=2) - 1  # of the column at (i, j), to each side; -1: none
    columns = [outside]  # by their height
    for height in range(1, heights.max() + 1):
        columns.append(columns[-1].copy(order="K"))
        _add(columns[-1], outside, 2, height)
    result = np.zeros_like(outside)
    for x, row in enumerate(heights):
        layer = np.zeros_like(outside)
        for y, height in enumerate(row):
            if height >= 0:
                _add(layer, columns[height], 1, y)
        _add(result, layer, 0, x)
    return result


def _add(into: np.ndarray, part: np.ndarray, axis: int, by: int) -> None:
    """Adds another mask to a mask, moved by `by` voxels to both sides."""
    into, part = np.moveaxis(into, axis, 0), np.moveaxis(part, axis, 0)
    into[by:] |= part[: len(part) - by]
    into[: len(into) - by] |= part[by:]
