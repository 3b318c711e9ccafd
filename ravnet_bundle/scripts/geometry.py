"""Geometry of masks, each once."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import distance_transform_edt


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
