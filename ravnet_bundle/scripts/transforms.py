"""Transforms that MONAI lacks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable, RandomizableTransform
from monai.transforms import Spacingd as MonaiSpacingd


class Spacingd(MonaiSpacingd):
    """MONAI's `Spacingd`, for dictionaries that hold more than arrays under `<key>_*`.

    MONAI 1.6 takes every `image_*` item for a dictionary of metadata and calls `.update` on it; MONAI Label keeps a
    path (a string) under `image_path`, which ends in an AttributeError. Here such items step aside for the call.
    """

    def __call__(self, data: Mapping[Hashable, torch.Tensor], *args, **kwargs) -> dict[Hashable, torch.Tensor]:
        prefixes = tuple(f"{key}_" for key in self.keys)
        aside = {
            name: item
            for name, item in data.items()
            if isinstance(name, str) and name.startswith(prefixes) and not isinstance(item, Mapping)
        }
        rest = {name: item for name, item in data.items() if name not in aside}
        return {**super().__call__(rest, *args, **kwargs), **aside}


class RandSlicesd(Randomizable, MapTransform):
    """Axial slices of a volume, drawn with a share that shows the liver.

    Each of the `num_samples` slices is drawn, with probability `liver_share`, from the slices with any label, and
    otherwise from all; where no slice has a label, from all. MONAI's label-balanced croppers index every voxel instead,
    and favour slices with much liver over the dome and the tip, which are the hard ones.

    Args:
        keys: the volumes, `(C, X, Y, Z)`, all on one grid; each becomes `(C, X, Y)`.
        label_key: which of them is the label.
        num_samples: slices per volume and call.
        liver_share: probability, 0 to 1.

    Returns:
        a list of `num_samples` dictionaries.
    """

    def __init__(self, keys: KeysCollection, label_key: str, num_samples: int, liver_share: float):
        super().__init__(keys)
        self.label_key, self.num_samples, self.liver_share = label_key, num_samples, liver_share

    def randomize(self, liver: np.ndarray, depth: int) -> list[int]:
        return [
            int(self.R.choice(liver if len(liver) and self.R.rand() < self.liver_share else depth))
            for _ in range(self.num_samples)
        ]

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> list[dict[Hashable, torch.Tensor]]:
        label = data[self.label_key]
        liver = np.flatnonzero((label > 0).flatten(0, 2).any(0).cpu().numpy())
        slices = []
        for z in self.randomize(liver, label.shape[-1]):
            item = dict(data)
            for key in self.key_iterator(item):
                volume = item[key]
                # a plain tensor: a slice has no use for the volume's affine, and plain tensors are faster
                item[key] = torch.as_tensor(np.asarray(volume[..., z]))
            slices.append(item)
        return slices


class RandOralContrastd(RandomizableTransform, MapTransform):
    """Bowel full of contrast agent: a bright ellipse laid over what is not liver, for slices scaled to 0..1.

    Few training scans show it, and a network that has seen bright livers takes it for one.

    Args:
        keys: the image, `(1, X, Y)`.
        label_key: the label on its grid; liver stays as it is.
        prob: of a slice.
        radius: of the half-axes, smallest and greatest, in pixels.
        brightness: the ellipse's value, least and greatest; 1 is the window's upper end.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str,
        prob: float = 0.1,
        radius: tuple[float, float] = (6.0, 40.0),
        brightness: tuple[float, float] = (0.9, 1.4),
    ):
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.label_key, self.radius, self.brightness = label_key, radius, brightness

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return result
        label = result[self.label_key]
        x, y = (
            torch.arange(n, device=label.device)[shape] - self.R.uniform(0, n)
            for n, shape in zip(label.shape[1:], ((slice(None), None), (None, slice(None))))
        )
        angle, (a, b) = self.R.uniform(0, np.pi), self.R.uniform(*self.radius, size=2)
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        agent = ((u / a) ** 2 + (v / b) ** 2 < 1) & (label == 0)
        for key in self.key_iterator(result):
            result[key] = torch.where(agent, self.R.uniform(*self.brightness), result[key])
        return result
