"""Repairs known faults in the headers of training data, or refuses the scan."""

from __future__ import annotations

import logging
import re
from collections.abc import Hashable, Mapping

import nibabel as nib
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from ..files import DataError, scan_name

logger = logging.getLogger(__name__)

# 3D-IRCADb-01, the source of LiTS volumes 28 to 47: pixel size and slice spacing in mm, and slices, of its 20 patients
# (https://www.ircad.fr/research/data-sets/liver-segmentation-3d-ircadb-01/). LiTS stores them with identity affines.
IRCADB = (
    (0.57, 1.6, 129), (0.78, 1.6, 172), (0.62, 1.25, 200), (0.74, 2.0, 91), (0.78, 1.6, 139),
    (0.78, 1.6, 135), (0.78, 1.6, 151), (0.56, 1.6, 124), (0.87, 2.0, 111), (0.73, 1.6, 122),
    (0.72, 1.6, 132), (0.68, 1.0, 260), (0.67, 1.6, 122), (0.72, 1.6, 113), (0.78, 1.6, 125),
    (0.70, 1.6, 155), (0.74, 1.6, 119), (0.74, 2.5, 74), (0.70, 4.0, 124), (0.81, 2.0, 225),
)  # fmt: skip


class RepairHeaderd(MapTransform):
    """Repairs known faults in headers, or refuses the scan, with a message each time.

    - The label's affine differs from the image's (LiTS; nnUNet#2751): it gets the image's, if one is an identity or the
      axes agree; otherwise the label is refused.
    - LiTS volumes 28 to 47 with an identity affine (LITS-CHALLENGE#14): if the number of slices agrees, the spacing
      comes from 3D-IRCADb's table, with the axes (L, P, S) of the other LiTS volumes. Another identity affine on a
      512 x 512 grid is refused: pixels of 1 mm would be a field of view of half a metre.
    - The liver lies on the left of the body (LPS data labelled RAS; model-zoo#766): both in-plane axes are turned.

    Args:
        keys: image and label, `(1, X, Y, Z)` each.

    Raises:
        DataError: different grids, or an unknown spacing.
    """

    def __init__(self, keys: KeysCollection):
        super().__init__(keys)
        self.image_key, self.label_key = self.keys

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        result = dict(data)
        image, label = result[self.image_key], result[self.label_key]
        name = scan_name(image.meta.get("filename_or_obj", "a scan without a file name"))
        if image.shape != label.shape:
            raise DataError(f"{name}: image {tuple(image.shape)} and label {tuple(label.shape)} are not on one grid.")
        if not torch.allclose(image.affine, label.affine, atol=1e-2):
            axes = [nib.aff2axcodes(volume.affine.numpy()) for volume in (image, label)]
            if axes[0] != axes[1] and not is_identity(label.affine) and not is_identity(image.affine):
                raise DataError(f"{name}: label along {axes[1]}, image along {axes[0]}: resample the label.")
            logger.warning("%s: the label's affine differs from the image's, which replaces it", name)
        affine = self.known_spacing(name, image)
        if left_of_body(image, label > 0, affine) > 10:
            logger.warning("%s: the liver lies on the left: in-plane axes are turned (LPS data labelled RAS)", name)
            affine = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=affine.dtype)) @ affine
        image.affine, label.affine = affine, affine.clone()
        return result

    @staticmethod
    def known_spacing(name: str, image: MetaTensor) -> torch.Tensor:
        affine, shape = image.affine, tuple(image.shape[1:])
        if not is_identity(affine) or shape[:2] != (512, 512):
            return affine
        number = re.search(r"(\d+)$", name.removesuffix("_0000"))
        patient = int(number[1]) - 27 if number else 0
        if not 1 <= patient <= len(IRCADB) or IRCADB[patient - 1][2] != shape[2]:
            raise DataError(f"{name}: an identity affine on a 512 x 512 grid: its spacing is unknown. Remove the scan.")
        pixel, spacing, _ = IRCADB[patient - 1]
        logger.warning("%s: identity affine; %g x %g x %g mm from 3D-IRCADb's table", name, pixel, pixel, spacing)
        return torch.diag(torch.tensor([-pixel, -pixel, spacing, 1.0], dtype=affine.dtype))


def is_identity(affine: torch.Tensor) -> bool:
    """Whether an affine is an identity, up to signs: pixels of 1 mm along the storage axes."""
    return torch.allclose(affine[:3, :3].abs(), torch.eye(3, dtype=affine.dtype))


def left_of_body(image: torch.Tensor, liver: torch.Tensor, affine: torch.Tensor) -> float:
    """How far the liver's centre is left of the body's (image > -30 HU), in slices with liver, mm; nan without."""
    slices = liver.any(dim=(0, 1, 2))
    body = (image.as_tensor() if isinstance(image, MetaTensor) else image)[..., slices] > -30
    return -float(affine[0, :3].double() @ (_centre(liver[..., slices]) - _centre(body)))


def _centre(mask: torch.Tensor) -> torch.Tensor:
    """Mean index (3) of a mask's voxels, `(1, X, Y, Z)`."""
    counts = [mask[0].sum(dim=[axis for axis in range(3) if axis != kept]).double() for kept in range(3)]
    return torch.stack([(count * torch.arange(len(count))).sum() / count.sum() for count in counts])
