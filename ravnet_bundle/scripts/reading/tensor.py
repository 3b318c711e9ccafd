"""Reading as MONAI's tensor and as MONAI's transform."""

from collections.abc import Hashable, Mapping
from pathlib import Path

import torch
from monai.data import MetaTensor
from monai.transforms import LoadImaged

from .scan import Scan
from .voxels import Voxels, read


def as_tensor(voxels: Voxels) -> MetaTensor:
    """HU, `(X, Y, Z)`, as a tensor that shares the memory."""
    return MetaTensor(torch.from_numpy(voxels.hu), affine=torch.from_numpy(voxels.affine), meta=voxels.meta)


def load(scan: Scan | str | Path) -> MetaTensor:
    """`read`, as a tensor. Raises `CTError`."""
    return as_tensor(read(scan))


class LoadCTd(LoadImaged):
    """MONAI's `LoadImaged` for CTs. Items hold a `Scan` or a path; an item may also be only a path.

    A MetaTensor passes unchanged: MONAI Deploy's operators read the volume themselves.

    Raises:
        CTError: as `load`.
    """

    def __call__(self, data: Mapping[Hashable, Scan | str] | str, reader: None = None) -> dict[Hashable, MetaTensor]:
        result = dict(data) if isinstance(data, Mapping) else dict.fromkeys(self.keys, data)
        for key in self.key_iterator(result):
            if not isinstance(result[key], MetaTensor):
                result[key] = load(result[key])
        return result
