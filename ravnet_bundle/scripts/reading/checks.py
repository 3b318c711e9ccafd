"""Checks of a CT's grid: shape, size, spacing, angles."""

import math
from itertools import combinations
from pathlib import Path

import numpy as np

from ..geometry import spacing_of
from .errors import CTError

VOXELS = 2**31  # at most; 1024 x 1024 x 2048. More is a damaged header, or does not fit a computer with 16 GB
SPACING = (0.1, 20.0)  # mm; scanners' pixels are 0.2 to 2 mm, their slices 0.3 to 10 mm apart
SKEW = 0.5  # degrees off a right angle: below, a rounding error of the export; above, a tilted gantry
EXACT = 1e-3  # degrees: the error of rounding to six digits
RATIO = 1100  # deflate's greatest compression
CT_RATIO, BOMB = 200, 2**26  # a CT of more than BOMB bytes compresses less than this


def check_shape(shape: tuple[int, ...], source: Path | str) -> None:
    """Raises `CTError` unless `shape`, (X, Y, Z), is a volume of at most `VOXELS` voxels."""
    if len(shape) != 3 or min(shape) < 2:
        raise CTError(f"{source}: shape {shape} is not a volume; give one three-dimensional CT.")
    if math.prod(shape) > VOXELS:
        raise CTError(f"{source}: the header claims {math.prod(shape):.2g} voxels of {VOXELS:.2g} at most; crop it.")


def check_claim(claimed: int, held: int, packed: bool, source: object) -> None:
    """Raises `CTError` if a file of `held` bytes cannot hold the `claimed` bytes of a CT's voxels."""
    if claimed > held * (RATIO if packed else 1):
        raise CTError(
            f"{source}: truncated: the header claims {_size(claimed)}, the file has {_size(held)}; export it again."
        )
    if packed and claimed > max(BOMB, held * CT_RATIO):
        raise CTError(f"{source}: {_size(claimed)} packed into {_size(held)}: no CT compresses that much; damaged?")


def doubts_about(affine: np.ndarray) -> tuple[str, ...]:
    """Why the affine may be wrong: programs without geometry write an identity, up to signs."""
    if np.allclose(np.abs(affine), np.eye(4)):
        return ("The affine is an identity, as if nothing were known: spacing and axes may be wrong.",)
    return ()


def _size(count: int) -> str:
    power = min(3, max(0, (count.bit_length() - 1) // 10))
    return f"{count / 1024**power:.3g} {('bytes', 'KB', 'MB', 'GB')[power]}"


def straighten(affine: np.ndarray, shape: tuple[int, ...], source: Path | str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Makes the axes' angles right angles; returns the affine and a note if it changed.

    Directions become the nearest orthonormal ones (polar decomposition); spacing and the volume's centre stay.

    Args:
        affine: voxel index to world in mm, (4, 4).
        shape: (X, Y, Z).
        source: for messages.

    Raises:
        CTError: an affine that is not finite, singular, sheared by more than `SKEW`, or with a spacing outside
            `SPACING`.
    """
    axes = np.asarray(affine, float)[:3, :3]
    spacing = spacing_of(affine)
    if not np.isfinite(affine).all() or not spacing.all() or abs(np.linalg.det(axes / spacing)) < 1e-3:
        raise CTError(f"{source}: the affine is singular or not finite: its axes span no volume; export it again.")
    skew = max(
        math.degrees(math.asin(min(1, abs(a @ b) / math.sqrt((a @ a) * (b @ b))))) for a, b in combinations(axes.T, 2)
    )
    if skew > SKEW:
        raise CTError(
            f"{source}: axes {skew:.1f} degrees off a right angle: a tilted gantry or a sheared affine; "
            "resample it to an upright grid first."
        )
    low, high = SPACING
    if spacing.min() < low or spacing.max() > high:
        sizes = " x ".join(f"{s:.3g}" for s in spacing)
        raise CTError(f"{source}: spacing {sizes} mm is not within {low:g} to {high:g} mm; is its unit mm?")
    if skew <= EXACT:
        return affine, ()
    straight = np.eye(4)
    left, _, right = np.linalg.svd(axes / spacing)
    straight[:3, :3] = left @ right * spacing
    centre = (np.asarray(shape) - 1) / 2
    straight[:3, 3] = affine[:3, 3] + (axes - straight[:3, :3]) @ centre
    return straight, (f"direction cosines straightened by {skew:.2g} degrees",)
