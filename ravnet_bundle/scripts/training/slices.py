"""A data set's slices on the network's grid: made once, kept in one file, used as single slices or whole scans."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from monai.data.utils import pickle_hashing
from monai.transforms import Compose, Randomizable
from torch.utils.data import Dataset

from ..files import Missing, atomic
from ..phantom import make_phantom, save_phantom

logger = logging.getLogger(__name__)

LEVELS = 100  # grey levels of the window: steps of 2 HU, far below noise; the file is a quarter smaller than with 256

# Scans of the liver show little of chest and pelvis. Without these phantoms a network finds liver there.
WITHOUT_LIVER = tuple(
    {"seed": seed, "region": region, "phase": phase, "shape": (256, 256, 64), "spacing": (1.6, 1.6, 4)}
    for seed, region, phase in (
        (101, "chest", "native"),
        (102, "chest", "portal"),
        (103, "pelvis", "native"),
        (104, "pelvis", "portal"),
    )
)


def name(data: Sequence[Mapping[str, Any]], transform: Compose) -> str:
    """Name of the file with these scans on this grid; it depends on the scans and the transforms."""
    files = [Path(item[key]) for item in data for key in ("image", "label") if key in item]
    stats = [file.stat() if file.is_file() else None for file in files]
    stamps = [(str(file), stat and (stat.st_size, stat.st_mtime_ns)) for file, stat in zip(files, stats)]
    told = repr((stamps or data, pickle_hashing(transform.flatten().transforms)))
    return f"slices-{hashlib.sha256(told.encode()).hexdigest()[:12]}.npz"


def pack(data: Sequence[Mapping[str, Any]], transform: Compose, path: Path) -> None:
    """Writes the slices of scans: for each number N `image_N` and `label_N`, uint8 `(Z, X, Y)`, in a compressed .npz.

    Args:
        data: items for the transform, or arguments of `make_phantom`.
        transform: makes image, 0..1, and label, 0 or 1, `(1, X, Y, Z)`, of an item. Images are stored in `LEVELS`.
        path: the file.
    """
    logger.info("making the slices of %d scans, for %s", len(data), path)
    with atomic(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, item in enumerate(data):
            scan = transform(dict(item)) if "image" in item else _phantom(item, transform)
            for key, levels in (("image", LEVELS), ("label", 1)):
                values = levels * np.asarray(scan[key][0], dtype=np.float32).transpose(2, 0, 1)
                with archive.open(f"{key}_{number}.npy", "w") as entry:
                    np.lib.format.write_array(entry, np.round(values).astype(np.uint8, order="C"))


def _phantom(settings: Mapping[str, Any], transform: Compose) -> Mapping[str, Any]:
    with TemporaryDirectory() as folder:
        image, label = (str(Path(folder, f"{key}.nii")) for key in ("image", "label"))
        save_phantom(make_phantom(**settings), image, label)
        return transform({"image": image, "label": label})


class Scans(Dataset):
    """Whole scans on the network's grid, made once and kept in a file.

    Args:
        data: items `{"image": path, "label": path}`, or arguments of `make_phantom`, as `WITHOUT_LIVER`'s.
        transform: as for `pack`.
        file: the .npz file, or a folder for files named by `name`.

    Returns:
        items `{"image": (1, X, Y, Z) float32 0..1, "label": (1, X, Y, Z) uint8}`.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Compose, file: str):
        super().__init__()
        self.data, self.transform, path = data, transform, Path(file)
        self.scans: Sequence[list[torch.Tensor]]
        if isinstance(data, Missing):
            self.scans = data
            return
        if path.suffix != ".npz":
            path = path / name(data, transform)
            with idist.one_rank_first() if idist.get_world_size() > 1 else nullcontext():
                if not path.exists():
                    pack(data, deepcopy(transform), path)  # a transform that was used has another hash
        with np.load(path) as arrays:
            number = len(arrays.files) // 2
            self.scans = [[torch.from_numpy(arrays[f"{key}_{i}"]) for key in ("image", "label")] for i in range(number)]

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        image, label = (volume.permute(1, 2, 0)[None] for volume in self.scans[index])
        return {"image": image / LEVELS, "label": label}


class Slices(Randomizable, Scans):
    """Random slices of such scans; all scans are equally likely.

    With probability `liver_share` a slice is drawn from the scan's slices with liver, if there are any, else from all.
    With probability `phantom_share` it is a slice of `WITHOUT_LIVER` instead (`phantoms.npz` beside a .npz file).

    Args:
        data, transform, file: as for `Scans`.
        number: slices in an epoch.
        liver_share, phantom_share: probabilities, 0 to 1.
        size: pixels to which a slice is cropped or zero-padded about its middle; `None`: unchanged.
        seen: the slices that become the channels, as for `AxialInferer`.

    Returns:
        items `{"image": (C, X, Y), "label": (C, X, Y), "seed": int}`; image and label uint8, the image in `LEVELS`: see
        `PrepareSlices`.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Compose,
        file: str,
        number: int,
        liver_share: float,
        size: Sequence[int] | None = None,
        seen: Sequence[int] = (0,),
        phantom_share: float = 0.0,
    ):
        super().__init__(data, transform, file)
        self.number, self.liver_share, self.size, self.seen = number, liver_share, size, np.array(seen)
        self.phantom_share = phantom_share
        scans = () if isinstance(data, Missing) else self.scans
        self.liver = [label.flatten(1).any(1).nonzero()[:, 0].numpy() for _, label in scans]
        if phantom_share and scans:
            beside = Path(file).with_name("phantoms.npz") if file.endswith(".npz") else file
            self.phantoms = Scans(WITHOUT_LIVER, transform, str(beside)).scans

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if self.phantom_share and self.R.rand() < self.phantom_share:
            (image, label), liver = self.phantoms[self.R.randint(len(self.phantoms))], ()
        else:
            scan = self.R.randint(len(self.scans))
            (image, label), liver = self.scans[scan], self.liver[scan]
        z = self.R.choice(liver if len(liver) and self.R.rand() < self.liver_share else len(image))
        seed = self.R.randint(2**31)  # of the augmentation of a batch that begins with this slice
        planes = (z + self.seen).clip(0, len(image) - 1)
        return {"image": self.fitted(image[planes]), "label": self.fitted(label[planes]), "seed": seed}

    def fitted(self, planes: torch.Tensor) -> torch.Tensor:
        if self.size is None:
            return planes
        result = planes.new_zeros(len(planes), *self.size)
        lengths = [min(have, want) for have, want in zip(planes.shape[1:], self.size)]
        source, target = (
            (..., *(slice((n - length) // 2, (n - length) // 2 + length) for n, length in zip(shape, lengths)))
            for shape in (planes.shape[1:], self.size)
        )
        result[target] = planes[source]
        return result
