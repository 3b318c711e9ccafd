"""White bowel beside the liver is not liver."""

import math
from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy.ndimage import gaussian_filter

from ..geometry import bounding_box, components, dilated, eroded, spacing_of

WHITE = 0.9  # brightness from which a voxel is white: 140 HU in the window [-40, 160] HU
DARKER = 0.1  # of the window: how much darker than white a liver must be; 20 HU
RADIUS_MM = 8.0  # of the ball that a white part must hold; veins do not
ENCLOSED = 0.65  # share of liver around a white part from which it is a lesion in the liver
SMOOTH_MM = 3.0  # otherwise noise makes holes in white parts
EDGE_MM = 3.0  # from where the smoothed image is white to the wall
SHELL_MM = 4.0  # the surroundings
FOUND = 0.5  # probability from which a voxel is liver


class BowelContrastd(MapTransform):
    """Sets probabilities to 0 in bowel full of contrast agent.

    Contrast agent in colon or stomach is as white as the whitest livers. A network that finds those livers also takes
    such bowel for liver. Within one CT the two differ: if the liver is darker, white parts are not liver. White parts
    are removed if they hold a ball of `RADIUS_MM` and if less than `ENCLOSED` of their surroundings is liver. Nothing
    happens if the liver itself, by its median, is white.

    Args:
        keys: probabilities, `(1, X, Y, Z)`.
        image_key: the image on their grid, `(1, X, Y, Z)`, 0 to 1, as the network sees it.
    """

    def __init__(self, keys: KeysCollection, image_key: str = "image"):
        super().__init__(keys)
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            found = (torch.as_tensor(result[key])[0] >= FOUND).cpu().numpy()
            spacing = spacing_of(result[self.image_key].affine)
            reach = RADIUS_MM + EDGE_MM + SHELL_MM
            box = bounding_box(found, [math.ceil(reach / mm) for mm in spacing])
            if box is None:
                continue
            image = torch.as_tensor(result[self.image_key])[0][box].cpu().float().numpy()
            bowel = _bowel(image, found[box], spacing)
            if bowel.any():
                result[key] = result[key].clone()
                result[key][0][box].masked_fill_(torch.from_numpy(bowel).to(result[key].device), 0.0)
        return result


def _bowel(image: np.ndarray, mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """A mask of the bowel voxels to remove, from image and mask `(X, Y, Z)`."""
    result = np.zeros_like(mask)
    if np.median(image[mask]) > WHITE - DARKER:
        return result
    core = eroded(gaussian_filter(image, SMOOTH_MM / spacing) >= WHITE, spacing, RADIUS_MM)
    if not core.any():
        return result
    parts, sizes = components(dilated(core, spacing, RADIUS_MM + EDGE_MM))
    for number in np.flatnonzero(sizes):
        part = parts == number
        around = dilated(part, spacing, SHELL_MM) & ~part
        if (mask & part).any() and mask[around].mean() < ENCLOSED:
            result |= part
    return result
