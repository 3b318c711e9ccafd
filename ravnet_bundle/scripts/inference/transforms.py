"""The network's probabilities in three dimensions: which component is the liver, and a smooth border."""

import math
from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy.ndimage import gaussian_filter

from ..geometry import bounding_box, dilated, eroded, largest_component, spacing_of

TRACE = 0.01  # smaller probabilities cannot reach 0.5 after smoothing


class LargestComponentd(MapTransform):
    """Sets probabilities to 0 outside the largest connected component of `probability >= threshold`.

    MONAI's `KeepLargestConnectedComponentd` needs a mask. This class works on probabilities, on the network's grid: the
    CT's own grid has several times the voxels. Probabilities below the threshold do not change. So the border of the
    kept component, interpolated later, does not move.

    Structures that hang on the liver by a thin bridge are not liver. `opening_mm` removes them by a morphological
    opening with a ball of this radius. At the volume's end the mask counts as going on. If the distance of the slices
    is larger than the radius, each slice is opened by itself. If no ball fits, there is no opening.

    Args:
        keys: probabilities, `(1, X, Y, Z)`.
        image_key: the image on their grid; its affine gives the size of a voxel.
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
            # labelling only the box is faster; the erosion needs the voxels around the mask
            box = bounding_box(found, margin=1)
            if box is None:
                continue
            spacing = spacing_of(result[self.image_key].affine) if self.opening_mm else np.ones(3)
            dropped = found[box] & ~self.chosen(found[box], spacing)
            result[key] = result[key].clone()
            result[key][0][box].masked_fill_(torch.from_numpy(dropped).to(result[key].device), 0.0)
        return result


class Smoothd(MapTransform):
    """Smooths probabilities by a Gaussian in three dimensions: the border has no steps of single slices or pixels.

    MONAI's `GaussianSmoothd` has its width in voxels, not in mm. It also pads the volume with 0, which would shrink a
    liver that the field of view cuts.

    Args:
        keys: probabilities, `(1, X, Y, Z)`.
        image_key: the image on their grid; its affine gives the size of a voxel.
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
