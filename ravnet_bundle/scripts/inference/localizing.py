"""The liver is found in a coarse view of the volume first, so that the network looks closely only there."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..geometry import bounding_box, components, expected_dice, largest_component
from .adapting import adapted
from .axial import AxialInferer

COARSER = 1.43  # the augmentation has shown such pixels to the network
SHOWN = 12  # slices that an unsure network adapts to; 20 gave the same Dice within .003
AIR = 8  # pixels around the body; without them the masks would differ a little
NO_LIVER = -30.0  # logit outside the box; its sigmoid is 1e-13

See = Callable[..., torch.Tensor]
Sides = list[tuple[int, int]]  # first and last + 1, along each axis


class LiverFirstInferer(AxialInferer):
    """Runs a network of axial slices on volumes `(B, 1, X, Y, Z)` in two passes: where is the liver, then the liver.

    The first pass sees few and coarse slices, without the air around the body. The second pass sees a box around the
    liver of the first pass. The box goes up and down to the next slice of the first pass without liver, and has a
    margin of `margin_mm` within the slices. If the liver reaches a side of the box, the box grows on that side. Logits
    outside the box are `NO_LIVER`. A liver that is too small for the first pass is lost; `step_mm` limits the height of
    such a liver. Slices `(B, C, H, W)` go through the network at once, in full.

    If a liver is found with low `certainty`, the CT is unlike the training scans. Then both passes run again, by a
    network that is `adapted` to slices of this CT. As in the training, about half of them show liver, if the CT reaches
    so far. The new logits are the result if at least half of their liver lies in the first liver. Otherwise, and if the
    network cannot adapt, the first logits stay.

    Args:
        pixel_mm: largest pixel of the first pass, mm; never more than `COARSER` times the volume's own pixel. Larger
            pixels of the volume stay as they are.
        step_mm: largest distance of the first pass's slices, mm.
        margin_mm: least margin around the liver within the slices of the second pass, mm.
        certain: below this certainty the network adapts; 0: it never adapts.
        **options: of `AxialInferer`.
    """

    def __init__(
        self,
        pixel_mm: float = 2.5,
        step_mm: float = 10.0,
        margin_mm: float = 40.0,
        certain: float = 0.975,
        **options: Any,
    ):
        super().__init__(**options)
        self.pixel_mm, self.step_mm, self.margin_mm, self.certain = pixel_mm, step_mm, margin_mm, certain

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        if inputs.ndim != 5:
            return super().__call__(inputs, network, *args, **kwargs)
        affines = getattr(inputs, "affine", torch.eye(4)).reshape(-1, 4, 4)  # without one: 1 mm, as MONAI has it
        spacings = affines[:, :3, :3].double().norm(dim=1).expand(len(inputs), 3).tolist()
        plain = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs

        def by(network: Callable[..., torch.Tensor]) -> See:
            return lambda x, at, size=None: self.slices(x, at, size, network, *args, **kwargs)

        return torch.stack([self._volume(volume, mm, network, by) for volume, mm in zip(plain, spacings)])

    def _volume(
        self, x: torch.Tensor, mm: list[float], network: Callable[..., torch.Tensor], by: Callable[..., See]
    ) -> torch.Tensor:
        logits = self._passes(x, mm, by(network))
        if not 0 < certainty(logits) < self.certain:
            return logits
        (a, b), (c, d) = _body(x)
        at = _levels(logits)
        batches = math.ceil(len(at) / self.batch_size)  # of equal size, each from bottom to top

        def show(one: Callable[..., torch.Tensor]) -> None:
            for k in range(batches):
                by(one)(x[:, a:b, c:d], at[k::batches])

        own = adapted(network, show)
        if own is None:
            return logits
        again = self._passes(x, mm, by(own))
        return again if _within(again > 0, logits > 0) else logits

    def _passes(self, x: torch.Tensor, mm: list[float], see: See) -> torch.Tensor:
        lengths, step = x.shape[1:], max(1, int(self.step_mm / mm[2]))
        at = range((lengths[2] - 1) % step // 2, lengths[2], step)
        body = _body(x)
        (a, b), (c, d) = body
        shrink = (min(1.0, max(pixel / self.pixel_mm, 1 / COARSER)) for pixel in mm[:2])
        size = [max(1, round((high - low) * factor)) for (low, high), factor in zip(body, shrink)]
        logits = see(x[:, a:b, c:d], at, size)
        result = logits.new_full((len(logits), *lengths), NO_LIVER)
        shown = _shown(logits, least=0.1)
        if shown is None:
            return result
        *plane, (first, last) = shown
        more = [math.ceil(self.margin_mm / pixel) for pixel in mm[:2]] + [step]
        coarse = [(high - low) / few for (low, high), few in zip(body, size)]
        sides = zip(plane, coarse, (a, c))
        box = [(start + int(low * few), start + math.ceil(high * few)) for (low, high), few, start in sides]
        box = self._wider([*box, (at[first], at[last - 1] + 1)], [(n, n) for n in more], lengths)
        heights = [box[2]]
        while heights:
            (a, b), (c, d), _ = box
            for low, high in heights:
                result[:, a:b, c:d, low:high] = see(x[:, a:b, c:d], range(low, high))
            inside = tuple(slice(*side) for side in box)
            shown = _shown(result[(slice(None), *inside)], least=1.0)
            if shown is None:
                break
            reached = [(low == 0, high == b - a) for (low, high), (a, b) in zip(shown, box)]
            wider = self._wider(box, [(n * low, n * high) for n, (low, high) in zip(more, reached)], lengths)
            heights = [(wider[2][0], box[2][0]), (box[2][1], wider[2][1])] if wider[:2] == box[:2] else [wider[2]]
            heights = [(low, high) for low, high in heights if low < high]
            box = wider
        return result

    def _wider(self, box: Sides, more: Sides, lengths: Sequence[int]) -> Sides:
        """A box that is so much larger on its sides, as far as the volume reaches; no padding within the slices."""
        result = [(max(0, a - low), min(n, b + high)) for (a, b), (low, high), n in zip(box, more, lengths)]
        for axis in (0, 1):
            low, high = result[axis]
            length = min(lengths[axis], high - low + (low - high) % self.divisor)
            low = max(0, min(low, lengths[axis] - length))
            result[axis] = (low, low + length)
        return result


def _body(x: torch.Tensor) -> Sides:
    """The box of all tissue within the slices `(1, X, Y, Z)`, with a margin of air that shows the skin's edge."""
    box = bounding_box((x[0] > 0).any(dim=2).cpu().numpy(), AIR)
    return [(0, n) for n in x.shape[1:3]] if box is None else [(side.start, side.stop) for side in box]


def certainty(logits: torch.Tensor) -> float:
    """The Dice that the probabilities expect of the largest connected component, 0 without liver: `(C, X, Y, Z)`."""
    found = (logits > 0).any(dim=0).cpu().numpy()
    if not found.any():
        return 0.0
    return expected_dice(torch.sigmoid(logits.amax(dim=0)).cpu().numpy(), largest_component(found))


def _within(found: torch.Tensor, first: torch.Tensor) -> bool:
    """Whether there is a mask and at least half of it lies in the first one: elsewhere is another organ."""
    return 0 < int(found.sum()) <= 2 * int((found & first).sum())


def _levels(logits: torch.Tensor) -> list[int]:
    """Slices with liver, and about as many above and below them, as far as the volume reaches: `(C, X, Y, Z)`."""
    *_, (low, high) = _shown(logits, least=0.1) or [(0, 0)]
    margin = (high - low) // 2
    low, high = max(0, low - margin), min(logits.shape[3], high + margin)
    return torch.linspace(low, high - 1, min(SHOWN, high - low)).round().int().tolist()


def _shown(logits: torch.Tensor, least: float) -> Sides | None:
    """The box around the liver in one volume: all components of at least `least` times the largest one's size."""
    parts, sizes = components((logits > 0).any(dim=0).cpu().numpy())
    box = bounding_box((sizes >= max(1, least * sizes.max()))[parts])
    return None if box is None else [(side.start, side.stop) for side in box]
