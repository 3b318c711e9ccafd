"""Geometry of masks, each once."""

from __future__ import annotations

import math

import numpy as np

SLAB = 2**21  # voxels that are worked on at once: they stay in the processor's cache


def eroded(inside: np.ndarray, spacing: np.ndarray, margin_mm: float) -> np.ndarray:
    """The voxels whose centre lies more than `margin_mm` from every centre outside: erosion by a ball.

    The border of the array is no border of the mask.

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


def _near(outside: np.ndarray, spacing: np.ndarray, margin_mm: float) -> np.ndarray:
    """The voxels within `margin_mm` of any outside: dilation by a ball, which is put together of columns along z.

    A distance map takes ten times as long, and knows more than is asked for.
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
    for i, row in enumerate(heights):
        layer = np.zeros_like(outside)
        for j, height in enumerate(row):
            if height >= 0:
                _add(layer, columns[height], 1, j)
        _add(result, layer, 0, i)
    return result


def _add(into: np.ndarray, part: np.ndarray, axis: int, by: int) -> None:
    """Adds to a mask another one, moved by so many voxels to both sides."""
    into, part = np.moveaxis(into, axis, 0), np.moveaxis(part, axis, 0)
    into[by:] |= part[: len(part) - by]
    into[: len(into) - by] |= part[by:]
