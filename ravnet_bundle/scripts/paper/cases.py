"""Slices for the figures: axes R and A, with the reference and the networks' masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientation

from ..files import scan_name
from ..geometry import spacing_of
from ..training.headers import RepairHeaderd

KEYS = ("image", "label")


class Slice(NamedTuple):
    """The axial slice with most liver in the reference; arrays are `(X, Y)`, `masks` by network, spacing in mm.

    `label` is 0 in the background, 1 in the liver, 2 in a tumour.
    """

    name: str
    number: int  # counted from below, from 1
    hu: np.ndarray
    label: np.ndarray
    masks: dict[str, np.ndarray]
    spacing: tuple[float, ...]


def turned(volume: MetaTensor) -> np.ndarray:
    """A volume `(1, ., ., .)` of any axes as `(X, Y, Z)`, axes R, A and S."""
    return Orientation("RAS", labels=None)(volume).numpy()[0]


def read_slice(item: Mapping[str, str], folders: Mapping[str, Path]) -> Slice:
    """Reads a scan's slice with most liver.

    Args:
        item: "image" and "label", files.
        folders: network -> folder of its masks, `<scan>.nii.gz` on the scan's grid.
    """
    data = Compose([LoadImaged(KEYS), EnsureChannelFirstd(KEYS), RepairHeaderd(KEYS)])(dict(item))
    name, affine = scan_name(item["image"]), data["image"].affine
    spacing = spacing_of(Orientation("RAS", labels=None)(data["image"]).affine)
    hu, label = (turned(data[key]) for key in KEYS)
    z = int((label > 0).sum((0, 1)).argmax())
    masks = {}
    for network, folder in folders.items():
        mask = np.asarray(nib.load(folder / f"{name}.nii.gz").dataobj) > 0
        masks[network] = turned(MetaTensor(mask[None], affine=affine))[..., z]
    return Slice(name, z + 1, hu[..., z], label[..., z], masks, tuple(spacing.tolist()))
