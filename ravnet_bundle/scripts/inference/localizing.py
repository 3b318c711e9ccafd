"""The liver is found in a coarse view of the volume first, so that the network looks closely only there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ..geometry import components
from .axial import AxialInferer

COARSER = 1.3  # what networks bear well; on a phantom at 2.25 times its pixels the shipped one finds nothing
NO_LIVER = -30.0  # logit of what was not looked at closely: its sigmoid is 1e-13

See = Callable[..., torch.Tensor]


class LiverFirstInferer(AxialInferer):
    """Runs a network of axial slices on volumes `(B, 1, X, Y, Z)` in two passes: where is the liver, then the liver.

    The first pass sees coarser slices, and few of them. The second one sees the slices from one that shows no liver to
    the next; where what it finds reaches the last of them, it sees more. Logits elsewhere are `NO_LIVER`. Slices that
    are seen are seen whole: the mask is that of a pass over everything, but for finds away from the liver, and but for
    a liver too small for the first pass, which `step_mm` bounds. Slices `(B, C, H, W)` are all seen.

    Args:
        pixel_mm: size of the first pass's pixels, at most; nor are they more than `COARSER` times the volume's, which
            are of the size that the network knows.
        step_mm: distance of the first pass's slices, at most.
        **options: of `AxialInferer`.
    """

    def __init__(self, pixel_mm: float = 2.25, step_mm: float = 10.0, **options: Any):
        super().__init__(**options)
        self.pixel_mm, self.step_mm = pixel_mm, step_mm

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        if inputs.ndim != 5:
            return super().__call__(inputs, network, *args, **kwargs)
        affines = getattr(inputs, "affine", torch.eye(4)).reshape(-1, 4, 4)  # without one: 1 mm, as MONAI has it
        spacings = affines[:, :3, :3].double().norm(dim=1).expand(len(inputs), 3).tolist()
        plain = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs

        def see(x: torch.Tensor, at: Sequence[int], size: Sequence[int] | None = None) -> torch.Tensor:
            return self.slices(x, at, size, network, *args, **kwargs)

        return torch.stack([self._volume(volume, mm, see) for volume, mm in zip(plain, spacings)])

    def _volume(self, x: torch.Tensor, mm: list[float], see: See) -> torch.Tensor:
        step, depth = max(1, int(self.step_mm / mm[2])), x.shape[3]
        at = range((depth - 1) % step // 2, depth, step)
        shrink = (min(1.0, max(pixel / self.pixel_mm, 1 / COARSER)) for pixel in mm[:2])
        size = [max(1, round(n * factor)) for n, factor in zip(x.shape[1:], shrink)]
        logits = see(x, at, size)
        shown = _shown(logits, least=0.1)
        result = logits.new_full((len(logits), *x.shape[1:]), NO_LIVER)
        if not len(shown):
            return result
        low, high = max(0, at[shown[0]] - step), min(depth, at[shown[-1]] + step + 1)
        parts = [(low, high)]
        while parts:
            for first, last in parts:
                result[..., first:last] = see(x, range(first, last))
            shown = _shown(result[..., low:high], least=1.0) + low
            lower = max(0, low - step) if low in shown else low
            higher = min(depth, high + step) if high - 1 in shown else high
            parts = [(a, b) for a, b in ((lower, low), (high, higher)) if a < b]
            low, high = lower, higher
        return result


def _shown(logits: torch.Tensor, least: float) -> np.ndarray:
    """The slices that show what was found in one volume: connected parts, from `least` of the largest one's size."""
    parts, sizes = components((logits > 0).any(dim=0).cpu().numpy())
    return np.flatnonzero((sizes >= max(1, least * sizes.max()))[parts].any(axis=(0, 1)))
