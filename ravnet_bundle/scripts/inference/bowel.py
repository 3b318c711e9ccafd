"""White bowel beside the liver is not liver."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy.ndimage import gaussian_filter

from ..geometry import bounding_box, components, dilated, eroded, spacing_of

SMOOTH_MM = 3.0  # noise would make holes in what is white
EDGE_MM = 3.0  # from where the smoothed image is white to the wall
SHELL_MM = 4.0  # the surroundings
DARKER = 0.1  # of the window: how much darker than white a liver must be; 20 HU


class BowelContrastd(MapTransform):
    """Sets probabilities to 0 in bowel full of contrast agent.

    Contrast agent in colon or stomach is as white as the whitest livers. A network that finds those livers also takes
    such bowel for liver. Within one CT the two differ: if the liver is darker, what is white is not liver. White parts
    are removed if they are thick (veins are not) and if less than `enclosed` of their surroundings is liver (a white
    lesion has liver all around it). Nothing happens if the liver itself, by its median, is white.

    Args:
        keys: probabilities, `(1, X, Y, Z)`.
        image_key: the image on their grid, `(1, X, Y, Z)`, 0 to 1, as the network sees it.
        white: brightness from which a voxel is white; the default is 140 HU in the window [-40, 160] HU.
        radius_mm: of the ball that a white part must hold, mm.
        enclosed: share of liver in the 4 mm around a white part, 0 to 1.
        threshold: of the mask.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        white: float = 0.9,
        radius_mm: float = 8.0,
        enclosed: float = 0.65,
        threshold: float = 0.5,
    ):
        super().__init__(keys)
        self.image_key, self.white, self.radius_mm = image_key, white, radius_mm
        self.enclosed, self.threshold = enclosed, threshold

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            found = (torch.as_tensor(result[key])[0] >= self.threshold).cpu().numpy()
            spacing = spacing_of(result[self.image_key].affine)
            reach = self.radius_mm + EDGE_MM + SHELL_MM
            box = bounding_box(found, [math.ceil(reach / mm) for mm in spacing])
            if box is None:
                continue
            image = torch.as_tensor(result[self.image_key])[0][box].cpu().float().numpy()
            bowel = self.bowel(image, found[box], spacing)
            if bowel.any():
                result[key] = result[key].clone()
                result[key][0][box].masked_fill_(torch.from_numpy(bowel).to(result[key].device), 0.0)
        return result

    def bowel(self, image: np.ndarray, mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
        """The voxels to be removed, boolean, of an image and a mask `(X, Y, Z)`."""
        result = np.zeros_like(mask)
        if np.median(image[mask]) > self.white - DARKER:
            return result
        core = eroded(gaussian_filter(image, SMOOTH_MM / spacing) >= self.white, spacing, self.radius_mm)
        if not core.any():
            return result
        parts, sizes = components(dilated(core, spacing, self.radius_mm + EDGE_MM))
        for number in np.flatnonzero(sizes):
            part = parts == number
            around = dilated(part, spacing, SHELL_MM) & ~part
            if (mask & part).any() and mask[around].mean() < self.enclosed:
                result |= part
        return result
