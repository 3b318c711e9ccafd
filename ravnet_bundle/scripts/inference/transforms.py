"""The network's probabilities in three dimensions: which component is the liver, and a smooth border."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy.ndimage import gaussian_filter

from ..geometry import bounding_box, dilated, eroded, largest_component, spacing_of

TRACE = 0.01  # what is less is nothing that a Gaussian could raise to a mask


class LargestComponentd(MapTransform):
    """Sets probabilities to 0 outside the largest connected component of `probability >= threshold`.

    MONAI's `KeepLargestConnectedComponentd` wants a mask. On probabilities it works before they are resampled to the
    CT's own grid, where labelling costs several times the voxels. What lies below the threshold stays as it is, so
    that the kept component's border, found later by interpolation, does not move.

    A network that sees axial slices one by one knows nothing of their neighbours, and what hangs on the liver by a
    thread is not liver. With `opening_mm` the component is that of the morphological opening by a ball: a voxel stays
    if it lies in a ball of this radius that is found as a whole (up to the volume's end, where the liver may go on).
    Slices farther apart than the radius are opened each by itself. Where no ball fits, nothing is opened.

    Args:
        keys: probabilities, `(1, X, Y, Z)`.
        image_key: the image on their grid, whose affine tells the size of a voxel.
        opening_mm: radius of the ball, mm; 0: no opening.
        threshold: of the mask.
    """

    def __init__(self, keys: KeysCollection, image_key: str = "image", opening_mm: float = 0.0, threshold: float = 0.5):
        super().__init__(keys)
        self.image_key, self.opening_mm, self.threshold = image_key, opening_mm, threshold

    def chosen(self, found: np.ndarray, spacing: np.ndarray) -> np.ndarray:
        """The part of `found`, boolean `(X, Y, Z)`, that stays."""
        if self.opening_mm:
            core = eroded(found, spacing, self.opening_mm)
            if core.any():
                return found & dilated(largest_component(core), spacing, self.opening_mm)
        return largest_component(found)

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            found = (torch.as_tensor(result[key])[0] >= self.threshold).cpu().numpy()
            # with the voxels around it, where the volume has any: they are what the erosion begins at
            box = bounding_box(found, margin=1)  # labelling a volume of nothing takes as long as of something
            if box is None:
                continue
            spacing = spacing_of(result[self.image_key].affine) if self.opening_mm else np.ones(3)
            dropped = found[box] & ~self.chosen(found[box], spacing)
            result[key] = result[key].clone()
            result[key][0][box].masked_fill_(torch.from_numpy(dropped).to(result[key].device), 0.0)
        return result


class Smoothd(MapTransform):
    """Probabilities through a Gaussian in three dimensions, so that the border has no steps of single slices or pixels.

    MONAI's `GaussianSmoothd` counts in voxels, whatever their size, and takes what lies outside the volume for 0, which
    would draw the border back where the view cuts the liver.

    Args:
        keys: probabilities, `(1, X, Y, Z)`.
        image_key: the image on their grid, whose affine tells the size of a voxel.
        sigma_mm: standard deviation of the Gaussian, mm; 0: as they are.
    """

    def __init__(self, keys: KeysCollection, image_key: str = "image", sigma_mm: float = 2.0):
        super().__init__(keys)
        self.image_key, self.sigma_mm = image_key, sigma_mm

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        for key in self.key_iterator(result) if self.sigma_mm else ():
            values = torch.as_tensor(result[key])
            spacing = spacing_of(result[self.image_key].affine)
            margin = [math.ceil(4 * self.sigma_mm / mm) for mm in spacing]
            box = bounding_box((values[0] > TRACE).cpu().numpy(), margin)
            if box is None:
                continue
            smooth = gaussian_filter(values[0][box].cpu().numpy(), self.sigma_mm / spacing, mode="nearest")
            result[key] = values.clone()
            result[key][0][box] = torch.from_numpy(smooth).to(values.device)
        return result
