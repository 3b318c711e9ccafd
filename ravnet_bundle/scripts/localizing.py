"""The liver is found in a coarse view of the volume first, so that the network looks closely only there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import find_objects, label

from .inference import AxialInferer

NO_LIVER = -30.0  # logit of what was not looked at closely: its sigmoid is 1e-13

Box = tuple[slice, slice, slice]


class LiverFirstInferer(AxialInferer):
    """Runs a network of axial slices on a volume `(B, C, X, Y, Z)` in two passes: where is the liver, then the liver.

    The first pass sees slices at half the resolution, some millimetres apart. The second pass sees the slices, and the
    part of them, that the first one's finds span, with a margin. Where what it finds reaches the border of that part,
    the part grows and is seen again. Logits elsewhere are `NO_LIVER`. Slices `(B, C, H, W)` are all seen closely.

    Args:
        step_mm: distance of the first pass's slices.
        margin_mm: around the first pass's finds, and what a part that is too small grows by.
        **options: of `AxialInferer`.
    """

    def __init__(self, step_mm: float = 10.0, margin_mm: float = 30.0, **options: Any):
        super().__init__(**options)
        self.step_mm, self.margin_mm = step_mm, margin_mm

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        if inputs.ndim != 5:
            return super().__call__(inputs, network, *args, **kwargs)
        affine = getattr(inputs, "affine", torch.eye(4)).reshape(-1, 4, 4)[0]
        mm = affine[:3, :3].double().norm(dim=0).tolist()  # of a tensor without an affine: 1, as everywhere in MONAI
        plain = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs

        def see(x: torch.Tensor) -> torch.Tensor:
            return super(LiverFirstInferer, self).__call__(x, network, *args, **kwargs)

        return torch.cat([self._volume(volume[None], mm, see) for volume in plain])

    def _volume(self, x: torch.Tensor, mm: list[float], see: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        shape = x.shape[2:]
        box = self._find(x, mm, see)
        if box is None:
            return x.new_full((1, 1, *shape), NO_LIVER)
        logits = see(x[:, :, box[0], box[1], box[2]])
        while (grown := self._grown(box, _largest(logits), shape, mm)) != box:
            if grown[:2] == box[:2]:  # a slice is seen as it was before, whatever others there are
                below = slice(grown[2].start, box[2].start), slice(box[2].stop, grown[2].stop)
                parts = [see(x[:, :, box[0], box[1], z]) if z.start < z.stop else None for z in below]
                logits = torch.cat([part for part in (parts[0], logits, parts[1]) if part is not None], dim=-1)
            else:
                logits = see(x[:, :, grown[0], grown[1], grown[2]])
            box = grown
        result = logits.new_full((1, logits.shape[1], *shape), NO_LIVER)
        result[:, :, box[0], box[1], box[2]] = logits
        return result

    def _find(self, x: torch.Tensor, mm: list[float], see: Callable[[torch.Tensor], torch.Tensor]) -> Box | None:
        """Where the liver is by a coarse view, with the margin; `None` where nothing is found."""
        shape = x.shape[2:]
        step = max(1, int(self.step_mm / mm[2]))
        start = (shape[2] - 1) % step // 2
        thin = x[..., start::step]
        coarse = F.avg_pool3d(thin, (2, 2, 1), ceil_mode=True, count_include_pad=False)
        found = (see(coarse) > 0).any(dim=1)[0].cpu().numpy()
        parts, number = label(found, np.ones((3, 3, 3)))
        if not number:
            return None
        sizes = np.bincount(parts.ravel())[1:]
        boxes = [box for box, size in zip(find_objects(parts), sizes, strict=True) if size >= sizes.max() / 10]
        scale, offset = (2, 2, step), (0, 0, start - step)  # the liver may begin just after the slice before
        low = [min(box[k].start for box in boxes) * scale[k] + offset[k] for k in range(3)]
        high = [max(box[k].stop for box in boxes) * scale[k] + start * (k == 2) for k in range(3)]
        margin = [round(self.margin_mm / size) for size in mm]
        return self._clip([a - m for a, m in zip(low, margin)], [b + m for b, m in zip(high, margin)], shape)

    @staticmethod
    def _clip(low: list[int], high: list[int], shape: torch.Size) -> Box:
        return tuple(slice(max(0, a), min(n, b)) for a, b, n in zip(low, high, shape))

    def _grown(self, box: Box, found: np.ndarray, shape: torch.Size, mm: list[float]) -> Box:
        """The box, larger where what was found in it reaches a side that is not the volume's own."""
        low, high = [], []
        for axis, (side, size) in enumerate(zip(box, mm)):
            margin = max(1, round(self.margin_mm / size))
            low.append(side.start - margin * bool(found.take(0, axis).any()))
            high.append(side.stop + margin * bool(found.take(-1, axis).any()))
        return self._clip(low, high, shape)


def _largest(logits: torch.Tensor) -> np.ndarray:
    """The largest connected part, corners included, of what was found in one volume: bool, `(X, Y, Z)`."""
    parts, number = label((logits > 0).any(dim=1)[0].cpu().numpy(), np.ones((3, 3, 3)))
    return parts == np.bincount(parts.ravel())[1:].argmax() + 1 if number else parts > 0
