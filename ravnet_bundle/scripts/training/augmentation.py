"""Augmentation of a batch of slices on its device: shapes here, intensities in `intensities`.

HU outside the window are unknown. Zeros are treated as fat (-100 HU), so that they stay black until much is added. Ones
stay at the window's end: a shift of brighter tissue (bone, the brightest livers) is only approximate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from monai.engines import PrepareBatch

from . import intensities as tone
from .intensities import FAT, HU, Draw
from .slices import LEVELS


def plane(values: torch.Tensor) -> torch.Tensor:
    """`(B,)` as `(B, 1, 1)`."""
    return values[:, None, None]


def deform(
    images: torch.Tensor,
    labels: torch.Tensor,
    size: tuple[int, int],
    draw: Draw,
    pixels: float = 1.0,
    degrees: float = 15,
    scale: tuple[float, float] = (0.7, 1.43),
    stretch: float = 1.25,
    shift: float = 24,
    elastic: float = 4,
    spacing: float = 40,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Takes a patch of `size` pixels, rotated, scaled along each axis, shifted and elastically deformed.

    It is never mirrored: the liver lies on the right.

    Args:
        pixels: by which `shift`, `elastic` and `spacing` are multiplied.
        degrees: greatest rotation, either way.
        scale: least and greatest magnification.
        stretch: greatest ratio of the two axes' scales.
        shift: greatest shift along each axis, pixels.
        elastic: greatest standard deviation of the displacement at the grid's points, pixels.
        spacing: of the grid's points, pixels.
    """
    b = len(images)
    shift, elastic, spacing = shift * pixels, elastic * pixels, spacing * pixels
    angle = draw.uniform(-1, 1, b) * math.radians(degrees)
    zoom = -draw.uniform(math.log(scale[0]), math.log(scale[1]), b, 1)
    aspect = draw.uniform(-0.5, 0.5, b, 1) * math.log(stretch)
    zoom = torch.exp(torch.cat([zoom - aspect, zoom + aspect], 1).clamp(-math.log(scale[1]), -math.log(scale[0])))
    cos, sin = torch.cos(angle), torch.sin(angle)
    y, x = (torch.arange(n, device=images.device) - (n - 1) / 2 for n in size)
    u, v = (axis * plane(zoom[:, k]) for k, axis in enumerate((x[None, :], y[:, None])))
    knots = [torch.arange(-1, int(n / spacing) + 2, device=images.device) * spacing - (n - 1) / 2 for n in size]
    bends = draw.normal(b, 2, len(knots[0]), len(knots[1])) * tone.spread(draw.uniform(0, elastic, b))
    width = torch.full((), 0.5 * spacing, device=images.device)
    bends = tone.bell(y, knots[0], width) @ bends @ tone.bell(x, knots[1], width).mT
    moved = bends + draw.uniform(-shift, shift, b, 2, 1, 1)
    columns = plane(cos) * u - plane(sin) * v + moved[:, 0]
    rows = plane(sin) * u + plane(cos) * v + moved[:, 1]
    grid = torch.stack([columns * (2 / images.shape[3]), rows * (2 / images.shape[2])], -1)
    both = torch.cat([images, labels.to(images.dtype)], 1)
    both = F.grid_sample(both, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    images, labels = both.split(images.shape[1], 1)
    return images, (labels >= 0.5).to(images.dtype)


def shift_liver(
    images: torch.Tensor, labels: torch.Tensor, draw: Draw, hu: tuple[float, float] = (-90, 40), edge: float = 1.0
) -> torch.Tensor:
    """Makes the whole liver darker or brighter by `hu`; the edge is smoothed by a Gaussian of `edge` pixels."""
    soft = tone.smooth(labels, torch.full((len(labels),), edge, device=labels.device))
    return images + soft * tone.spread(draw.uniform(*hu, len(images))) * HU


def ellipses(
    images: torch.Tensor,
    labels: torch.Tensor,
    draw: Draw,
    number: int,
    radius: tuple[float, float],
    brightness: tuple[float, float],
    opacity: tuple[float, float],
    spare: bool,
) -> torch.Tensor:
    """Draws one to `number` ellipses on each slice, smaller in the neighbouring slices; the label does not change.

    Outside the liver they are masses, fluid and contrast agent in stomach and bowel, which are rare in a few dozen
    scans: without them a network takes anything as bright as liver for liver. Inside they are lesions, so that an
    ellipse as such has no meaning.

    Args:
        radius: smallest and greatest half-axis, pixels.
        brightness: least and greatest; 0 to 1 is the window.
        opacity: least and greatest share of the ellipse; the rest is the tissue below, with its texture.
        spare: draw only outside the liver.
    """
    b, c, h, w = images.shape
    body = F.avg_pool2d((images[:, c // 2, None] > 0).float(), 4, ceil_mode=True)
    columns = body.shape[3]
    centre = torch.multinomial(body.flatten(1) + 1e-6, number, replacement=True, generator=draw.pixels)
    angle, bright = draw.uniform(0, math.pi, b, number), draw.uniform(*brightness, b, number)
    axes = draw.uniform(*radius, b, number, 2)
    some = draw.uniform(0, number, b, 1) > torch.arange(number, device=images.device)
    share = draw.uniform(*opacity, b, number) * some
    height = (1 - draw.uniform(0, 1.2, b, number, c) ** 2).clamp(min=0.01).sqrt()  # 0.1: nearly nothing
    height[:, :, c // 2] = 1
    free = 1 - labels if spare else torch.ones_like(labels)
    rows, cols = torch.arange(h, device=images.device), torch.arange(w, device=images.device)
    for k in range(number):
        y = (rows - (centre[:, k, None] // columns) * 4)[:, :, None]
        x = (cols - (centre[:, k, None] % columns) * 4)[:, None, :]
        cos, sin = plane(torch.cos(angle[:, k])), plane(torch.sin(angle[:, k]))
        u, v = (x * cos + y * sin) / plane(axes[:, k, 0]), (y * cos - x * sin) / plane(axes[:, k, 1])
        outward = (u * u + v * v).sqrt()[:, None]
        inside = (height[:, k, :, None, None] - outward) * tone.spread(axes[:, k].min(1).values)
        images = torch.lerp(
            images, tone.spread(bright[:, k]), tone.spread(share[:, k]) * (inside + 0.5).clamp(0, 1) * free
        )
    return images


def cut(
    images: torch.Tensor, labels: torch.Tensor, draw: Draw, reach: tuple[float, float] = (0.55, 1.0)
) -> tuple[torch.Tensor, torch.Tensor]:
    """A smaller field of view: image and label are empty outside a circle, or beyond a line.

    Args:
        reach: least and greatest radius, or distance of the line from the middle, in half widths of the slice.
    """
    b, _, h, w = images.shape
    y, x = ((torch.arange(n, device=images.device) - (n - 1) / 2) / (max(h, w) / 2) for n in (h, w))
    shift, angle = draw.uniform(-0.15, 0.15, b, 2), draw.uniform(0, 2 * math.pi, b)
    y, x = (y[None] - shift[:, :1])[:, :, None], (x[None] - shift[:, 1:])[:, None, :]
    line = x * torch.cos(angle)[:, None, None] + y * torch.sin(angle)[:, None, None]
    round_ = draw.uniform(0, 1, b)[:, None, None] < 0.5
    far = torch.where(round_, (x * x + y * y).sqrt(), line)
    inside = (far < draw.uniform(*reach, b)[:, None, None])[:, None]
    return torch.where(inside, images, -FAT), labels * inside


def thicker(images: torch.Tensor, draw: Draw) -> torch.Tensor:
    """Makes the neighbouring slices more like the middle one, as in a CT with thick slices."""
    middle = images[:, images.shape[1] // 2, None]
    return torch.lerp(images, middle, tone.spread(draw.uniform(0, 1, len(images))))


@dataclass
class Augmentation:
    """The steps for a batch of slices, in this order; ranges are the functions' defaults.

    Args:
        size: of the output patch, pixels; `None`: as the input.
        pixel_size: mm; shifts, bends and ellipses keep their size in mm, textures theirs in pixels. Up to 0: 1.75.
        liver, beside, ...: each step's probability for a slice. `deform` is always done.
    """

    size: Sequence[int] | None = None
    pixel_size: float = 1.75
    liver: float = 0.5  # the whole liver darker or brighter
    beside: float = 0.5  # masses and fluid
    within: float = 0.25  # lesions
    organs: float = 0.5  # large masses as bright as organs
    curve: float = 0.3
    gamma: float = 0.3
    contrast: float = 0.5
    network: float = 0.2
    agent: float = 0.6  # contrast agent in stomach and bowel
    filtered: float = 0.3
    noise: float = 0.4
    streaks: float = 0.2
    thicker: float = 0.2  # slices
    cut: float = 0.1  # a smaller field of view

    @property
    def pixels(self) -> float:
        """Pixels here for one of 1.75 mm, in which the ranges are given."""
        return 1.75 / self.pixel_size if self.pixel_size > 0 else 1.0

    def steps(self, draw: Draw) -> tuple[tuple[float, Callable[..., torch.Tensor]], ...]:
        """Probabilities and functions of images and labels that return images."""

        def masses(
            x: torch.Tensor, y: torch.Tensor, number: int, radius: tuple[float, float], *how: Any
        ) -> torch.Tensor:
            return ellipses(x, y, draw, number, (radius[0] * self.pixels, radius[1] * self.pixels), *how)

        return (
            (self.liver, lambda x, y: shift_liver(x, y, draw)),
            (self.beside, lambda x, y: masses(x, y, 3, (4, 40), (0, 1.4), (0.6, 1), True)),
            (self.within, lambda x, y: masses(x, y, 3, (2, 20), (0, 0.7), (0.6, 1), False)),
            (self.organs, lambda x, y: masses(x, y, 3, (10, 45), (0.1, 0.7), (0.8, 1), True)),
            (self.curve, lambda x, y: tone.curve(x, draw)),
            (self.gamma, lambda x, y: tone.gamma(x, draw)),
            (self.contrast, lambda x, y: tone.contrast(x, draw)),
            (self.network, lambda x, y: tone.shallow_network(x, draw)),
            (self.agent, lambda x, y: masses(x, y, 4, (4, 50), (0.9, 1.4), (0.9, 1), True)),
            (self.filtered, lambda x, y: tone.filtered(x, draw)),
            (self.noise, lambda x, y: tone.noise(x, draw)),
            (self.streaks, lambda x, y: tone.streaks(x, draw)),
            (self.thicker, lambda x, y: thicker(x, draw)),
        )

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augments images, float 0..1, and labels, 0 or 1, both `(B, C, H, W)`.

        The channels are neighbouring slices; the network segments the middle one. All randomness comes from the
        generator on the CPU (`None`: PyTorch's own), so the same state gives the same batch.
        """
        draw = Draw(images.device, generator)
        images, labels = deform(images, labels, tuple(self.size or images.shape[2:]), draw, self.pixels)
        images = tone.open_window(images)
        for probability, step in self.steps(draw):
            chosen = draw.chosen(len(images), probability)
            if len(chosen):
                images[chosen] = step(images[chosen], labels[chosen])
        chosen = draw.chosen(len(images), self.cut)
        if len(chosen):
            images[chosen], labels[chosen] = cut(images[chosen], labels[chosen], draw)
        return images.clamp_(0, 1), labels


class PrepareSlices(PrepareBatch):
    """For MONAI's trainer: moves a batch of `Slices` to the device, as floats 0..1, and augments it by its own seed.

    Returns:
        images `(B, C, H, W)` and the labels of their middle slices, `(B, 1, H, W)`; both smaller by `coarse`, which
        `CoarseFirst` sets.

    Args:
        transforms: functions of images and labels that return both, such as `Augmentation`.
    """

    coarse = 1

    def __init__(self, transforms: Sequence[Callable[..., tuple[torch.Tensor, torch.Tensor]]] = ()):
        self.transforms = transforms

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = (batchdata[key].to(device, non_blocking=non_blocking).float() for key in ("image", "label"))
        images /= LEVELS
        with torch.random.fork_rng(devices=()):  # so that random numbers of the network do not change the data
            torch.default_generator.manual_seed(int(batchdata["seed"][0]))
            for transform in self.transforms:
                images, labels = transform(images, labels)
        labels = labels[:, labels.shape[1] // 2, None]
        if self.coarse > 1:
            images, labels = (F.avg_pool2d(planes, self.coarse) for planes in (images, labels))
        return images, (labels >= 0.5).to(images.dtype)
