"""Transforms that MONAI lacks."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.utils import affine_to_spacing
from monai.transforms import KeepLargestConnectedComponent, MapTransform, Randomizable, RandomizableTransform
from monai.transforms import Spacingd as MonaiSpacingd
from monai.transforms.utils import generate_spatial_bounding_box

from .geometry import eroded


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


class RandEllipsesd(RandomizableTransform, MapTransform):
    """Up to `number` ellipses of any brightness laid over a slice scaled to 0..1, while its label stays as it is.

    With a `label_key` they spare the liver: masses, fluid and contrast agent in stomach and bowel, of which a few dozen
    scans show too few, so that a network takes whatever is as bright as some liver for one. Without, they lie anywhere:
    lesions that are part of the liver, and the reason why an ellipse as such means nothing.

    Args:
        keys: the image, `(1, X, Y)`.
        label_key: the label on its grid, where liver (> 0) is spared; `None`: nothing is.
        prob: of a slice.
        number: of ellipses at most; each number from 1 on is as likely.
        radius: of the half-axes, smallest and greatest, in pixels.
        brightness: an ellipse's value, least and greatest; 1 is the window's upper end.
        opacity: how much of the brightness is the ellipse's; the rest is what lies under it, with its texture.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str | None = None,
        prob: float = 0.1,
        number: int = 3,
        radius: tuple[float, float] = (4.0, 40.0),
        brightness: tuple[float, float] = (0.0, 1.4),
        opacity: tuple[float, float] = (0.6, 1.0),
    ):
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.label_key, self.number, self.radius = label_key, number, radius
        self.brightness, self.opacity = brightness, opacity

    def ellipse(self, image: torch.Tensor) -> torch.Tensor:
        """`(1, X, Y)`, true inside one ellipse whose centre is some pixel above 0, which air is not."""
        body = image[0].nonzero()
        centre = body[self.R.randint(len(body))] if len(body) else (0, 0)
        x, y = (torch.arange(n, device=image.device) - c for n, c in zip(image.shape[1:], centre))
        angle, (a, b) = self.R.uniform(0, np.pi), self.R.uniform(*self.radius, size=2)
        x, y = x[:, None], y[None, :]
        u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        return ((u / a) ** 2 + (v / b) ** 2 < 1)[None]

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return result
        for _ in range(self.R.randint(1, self.number + 1)):
            for key in self.key_iterator(result):
                image = result[key]
                inside = self.ellipse(image)
                if self.label_key is not None:
                    inside = inside & (result[self.label_key] == 0)
                brightness, opacity = self.R.uniform(*self.brightness), self.R.uniform(*self.opacity)
                result[key] = torch.where(inside, opacity * brightness + (1 - opacity) * image, image)
        return result


class LargestComponentd(MapTransform):
    """Sets probabilities to 0 outside the largest connected component of `probability >= threshold`.

    MONAI's `KeepLargestConnectedComponentd` wants a mask. On probabilities it works before they are resampled to the
    CT's own grid, where labelling costs several times the voxels. What lies below the threshold stays as it is, so
    that the kept component's border, found later by interpolation, does not move.

    A network that sees axial slices one by one knows nothing of their neighbours, and what hangs on the liver by a
    thread is not liver. With `opening_mm` the component is that of the morphological opening by a ball: a voxel stays
    if it lies in a ball of this radius that is found as a whole (up to the volume's end, where the liver may go on).
    Slices farther apart than the radius are opened each by itself. Where no ball fits, nothing is opened.

    Args:
        keys: probabilities, `(1, X, Y, Z)`.
        image_key: the image on their grid, whose affine tells the size of a voxel.
        opening_mm: radius of the ball, mm; 0: no opening.
        threshold: of the mask.
    """

    def __init__(self, keys: KeysCollection, image_key: str = "image", opening_mm: float = 0.0, threshold: float = 0.5):
        super().__init__(keys)
        self.image_key, self.opening_mm, self.threshold = image_key, opening_mm, threshold
        self.largest = KeepLargestConnectedComponent()

    def chosen(self, found: torch.Tensor, spacing: np.ndarray | None) -> torch.Tensor:
        """The part of `found`, boolean `(1, X, Y, Z)`, that stays."""
        if self.opening_mm:
            core = torch.from_numpy(eroded(found[0].cpu().numpy(), spacing, self.opening_mm))[None]
            if core.any():
                far = eroded(~self.largest(core)[0].numpy(), spacing, self.opening_mm)
                return found & torch.from_numpy(~far)[None].to(found.device)
        return self.largest(found.clone())  # it works in place

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            found = result[key] >= self.threshold
            if not found.any():
                continue
            # with the voxels around it, where the volume has any: they are what the erosion begins at
            start, end = generate_spatial_bounding_box(found, margin=1, allow_smaller=True)
            box = (slice(None), *map(slice, start, end))  # labelling a volume of nothing takes as long as of something
            spacing = np.asarray(affine_to_spacing(result[self.image_key].affine)) if self.opening_mm else None
            dropped = found[box] & ~self.chosen(found[box], spacing)
            result[key] = result[key].clone()
            result[key][box].masked_fill_(dropped, 0.0)
        return result
