"""The slices of all scans of a data set, made once on the network's grid and kept in one file; and what is drawn."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.transforms import Randomizable
from torch.utils.data import Dataset

from .files import atomic

LEVELS = 100  # of the window, 0 to 100: steps of 2 HU, less than any scan's noise, make the file small

logger = logging.getLogger(__name__)


def identity(data: Sequence[Mapping[str, Any]], grid: Any) -> str:
    """Eight letters that tell one packed data set from another: the files, with size and time, and the grid."""

    def stamp(path: Any) -> list:
        path = Path(path)
        return [path.name, path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else [str(path)]

    listing = [[stamp(item["image"]), stamp(item["label"])] for item in data]
    return hashlib.sha256(json.dumps([listing, grid], default=str).encode()).hexdigest()[:8]


def pack(data: Sequence[Mapping[str, Any]], transform: Callable[[Any], Any], path: Path) -> None:
    """Writes the slices of scans: `image_0`, `label_0`, ..., each uint8 `(Z, X, Y)`; `LEVELS` is the window's upper end.

    Args:
        data: items for the transform.
        transform: makes image, 0..1, and label, 0 or 1, `(1, X, Y, Z)`, of each.
        path: of the file, a compressed .npz.
    """
    arrays = {}
    for number, item in enumerate(data):
        scan = transform(dict(item))
        image, label = (np.asarray(scan[key][0], dtype=np.float32).transpose(2, 0, 1) for key in ("image", "label"))
        arrays[f"image_{number}"] = np.round(LEVELS * image.clip(0, 1)).astype(np.uint8)
        arrays[f"label_{number}"] = (label > 0).astype(np.uint8)
        logger.info("%d of %d scans are packed", number + 1, len(data))
    with atomic(path) as file:
        np.savez_compressed(file, **arrays)


class Slices(Randomizable, Dataset):
    """Axial slices drawn from scans, each as likely; made on the grid once, kept in a file in `folder`.

    A slice is drawn, with probability `liver_share`, from the slices with any label, and otherwise from all; where no
    slice has a label, from all. The file's name tells the scans and the grid, so that others make another file.

    Args:
        data: the scans, `{"image": path, "label": path}`.
        transform: makes their slices, as in `pack`.
        folder: for the file.
        grid: what else decides what the slices look like, for the file's name; its JSON.
        number: of slices in an epoch; `None`: one of each scan.
        liver_share: probability, 0 to 1.
        size: a slice is cut or filled up to, about its middle; `None`: as it is.

    Returns:
        items `{"image": (1, X, Y), "label": (1, X, Y)}`, uint8; `LEVELS` is the window's upper end.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[Any], Any],
        folder: str,
        grid: Any = None,
        number: int | None = None,
        liver_share: float = 0.5,
        size: Sequence[int] | None = None,
    ):
        self.data, self.liver_share, self.size = data, liver_share, size
        path = Path(folder) / f"slices-{identity(data, grid)}.npz"
        with idist.one_rank_first(local=True):
            if not path.exists():
                pack(data, transform, path)
        with np.load(path) as arrays:
            self.scans = [
                tuple(torch.from_numpy(arrays[f"{key}_{i}"]) for key in ("image", "label")) for i in range(len(data))
            ]
        self.liver = [label.flatten(1).any(1).nonzero()[:, 0].numpy() for _, label in self.scans]
        self.number = number or len(self.scans)

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image, label = self.scans[index % len(self.scans)]
        liver = self.liver[index % len(self.scans)]
        z = int(self.R.choice(liver if len(liver) and self.R.rand() < self.liver_share else len(image)))
        return {"image": self.cut(image[z])[None], "label": self.cut(label[z])[None]}

    def cut(self, plane: torch.Tensor) -> torch.Tensor:
        """About the middle, to the size."""
        if self.size is None:
            return plane
        result = plane.new_zeros(tuple(self.size))
        source, target = [], []
        for have, want in zip(plane.shape, self.size):
            length = min(have, want)
            source.append(slice((have - length) // 2, (have - length) // 2 + length))
            target.append(slice((want - length) // 2, (want - length) // 2 + length))
        result[tuple(target)] = plane[tuple(source)]
        return result
