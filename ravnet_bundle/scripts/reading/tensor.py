"""What is read as MONAI's tensor, and the reading as its transform."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path

import torch
from monai.data import MetaTensor
from monai.transforms import LoadImaged

from .scan import Scan
from .voxels import Voxels, read


def as_tensor(voxels: Voxels) -> MetaTensor:
    """HU, `(X, Y, Z)`, of the type and in the memory that they have."""
    return MetaTensor(torch.from_numpy(voxels.hu), affine=torch.from_numpy(voxels.affine), meta=voxels.meta)


def load(scan: Scan | str | Path) -> MetaTensor:
    """`read`, as a tensor. Raises `CTError` as that does."""
    return as_tensor(read(scan))


class LoadCTd(LoadImaged):
    """MONAI's `LoadImaged` for CTs: `load` in a dictionary transform. Items hold a `Scan`, or a path that names one.

    A path alone, as in the lists of the Model Zoo's configs, is an item too. A volume that is there already passes as
    it is: MONAI Deploy's operators hand over what they have read themselves.

    Raises:
        CTError: as `load`.
    """

    def __call__(self, data: Mapping[Hashable, Scan | str] | str, reader: None = None) -> dict[Hashable, MetaTensor]:
        result = dict(data) if isinstance(data, Mapping) else dict.fromkeys(self.keys, data)
        for key in self.key_iterator(result):
            if not isinstance(result[key], MetaTensor):
                result[key] = load(result[key])
        return result
