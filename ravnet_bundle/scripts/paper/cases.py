"""Scans for the figures: axes R, A, S, with the reference and the networks' masks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Orientation

from ..files import scan_name
from ..geometry import spacing_of
from ..training.headers import RepairHeaderd

KEYS = ("image", "label")


class Scan(NamedTuple):
    """A volume: `hu` and `label` (0 background, 1 liver, 2 tumour) are `(X, Y, Z)`, the spacing is in mm."""

    name: str
    hu: np.ndarray
    label: np.ndarray
    spacing: tuple[float, ...]
    affine: torch.Tensor  # of the file's own axes, repaired


class Slice(NamedTuple):
    """The axial slice with most liver in the reference; arrays are `(X, Y)`, `masks` by network."""

    name: str
    number: int  # counted from below, from 1
    hu: np.ndarray
    label: np.ndarray
    masks: dict[str, np.ndarray]
    spacing: tuple[float, ...]


def read_scan(item: Mapping[str, str]) -> Scan:
    """Reads the files "image" and "label" of a scan."""
    data = Compose([LoadImaged(KEYS), EnsureChannelFirstd(KEYS), RepairHeaderd(KEYS)])(dict(item))
    affine = data["image"].affine
    spacing = spacing_of(Orientation("RAS", labels=None)(data["image"]).affine)
    hu, label = (turned(data[key]) for key in KEYS)
    return Scan(scan_name(item["image"]), hu, label, tuple(spacing.tolist()), affine)


def turned(volume: MetaTensor) -> np.ndarray:
    """A volume `(1, ., ., .)` of any axes as `(X, Y, Z)`."""
    return Orientation("RAS", labels=None)(volume).numpy()[0]


def read_slice(item: Mapping[str, str], folders: Mapping[str, Path]) -> Slice:
    """Reads a scan's slice with most liver.

    Args:
        item: "image" and "label", files.
        folders: network -> folder of its masks, `<scan>.nii.gz` on the scan's grid.
    """
    scan = read_scan(item)
    z = int((scan.label > 0).sum((0, 1)).argmax())
    masks = {}
    for name, folder in folders.items():
        mask = np.asarray(nib.load(folder / f"{scan.name}.nii.gz").dataobj) > 0
        masks[name] = turned(MetaTensor(mask[None], affine=scan.affine))[..., z]
    return Slice(scan.name, z + 1, scan.hu[..., z], scan.label[..., z], masks, scan.spacing)
