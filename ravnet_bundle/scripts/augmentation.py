"""Augmentation of a whole batch of slices on its device.

The values are those of the window, 0 (-40 HU) to 1 (160 HU). What a scan had outside is not known, so a shift of what is
as bright or as dark as the window's end is only nearly right: bone, and the brightest livers, get darker as if they had
been at the end. Zeros are mostly fat and air: for noise, shifts and filters they are taken for -100 HU, so that dark
tissue stays the same black until much is added.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from monai.engines import PrepareBatch

from .slices import LEVELS

HU = 1 / 200  # of one HU in the window's units
FAT = 60 * HU  # how far below the window fat lies
EDGE = 0.05  # values up to here are on the way from fat to tissue


class Draw:
    """Random numbers for one batch: few ones by the CPU's generator, those per pixel by one that it seeds.

    What is chosen is then known on the CPU, and a GPU is never waited for.
    """

    def __init__(self, device: torch.device, generator: torch.Generator | None):
        self.device, self.generator = device, generator
        seed = int(torch.randint(2**62, (1,), generator=generator))
        self.pixels = torch.Generator(device).manual_seed(seed)

    def to(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self.device, non_blocking=True)

    def chosen(self, number: int, probability: float) -> torch.Tensor:
        """Indices of the samples that a step is for."""
        return self.to((torch.rand(number, generator=self.generator) < probability).nonzero()[:, 0])

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return self.to(low + (high - low) * torch.rand(shape, generator=self.generator))

    def normal(self, *shape: int) -> torch.Tensor:
        """By the device: for fields."""
        return torch.randn(shape, generator=self.pixels, device=self.device)


def spread(values: torch.Tensor) -> torch.Tensor:
    """`(B,)` as `(B, 1, 1, 1)`."""
    return values[:, None, None, None]


def plane(values: torch.Tensor) -> torch.Tensor:
    """`(B,)` as `(B, 1, 1)`."""
    return values[:, None, None]


def bell(points: torch.Tensor, centres: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
    """Weights `(..., points, centres)`, Gaussian in their distance, each row's sum 1: smoothing as a matrix product."""
    distance = ((points[:, None] - centres) / sd[..., None, None]) ** 2
    weights = torch.exp(-0.5 * distance.clamp(max=40)) * (distance < 40)  # no denormal numbers: they are slow
    return weights / weights.sum(-1, keepdim=True)


def smooth(images: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
    """Images `(B, C, H, W)` through a Gaussian of `sd` pixels, `(B,)`."""
    rows, columns = (torch.arange(n, device=images.device) for n in images.shape[2:])
    sd = sd[:, None].clamp(min=0.1)
    return bell(rows, rows, sd) @ images @ bell(columns, columns, sd).mT


def deform(
    images: torch.Tensor,
    labels: torch.Tensor,
    size: tuple[int, int],
    draw: Draw,
    degrees: float = 15,
    scale: tuple[float, float] = (0.7, 1.43),
    stretch: float = 1.25,
    shift: float = 24,
    elastic: float = 4,
    spacing: int = 40,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cuts out a patch of `size` pixels, turned, scaled along each axis, shifted and smoothly bent.

    Never mirrored: the liver lies on the right.

    Args:
        degrees: of rotation at most, either way.
        scale: of magnification, least and greatest.
        stretch: of one axis over the other, at most.
        shift: pixels at most along each axis.
        elastic: greatest standard deviation of the displacement at the grid's points, pixels; it is drawn from 0 on.
        spacing: of the grid's points, pixels.
    """
    b, (h, w) = len(images), size
    angle = draw.uniform(-1, 1, b) * math.radians(degrees)
    zoom = -draw.uniform(math.log(scale[0]), math.log(scale[1]), b, 1)
    aspect = draw.uniform(-0.5, 0.5, b, 1) * math.log(stretch)
    zoom = torch.exp(torch.cat([zoom - aspect, zoom + aspect], 1).clamp(-math.log(scale[1]), -math.log(scale[0])))
    cos, sin = torch.cos(angle), torch.sin(angle)
    y, x = (torch.arange(n, device=images.device) - (n - 1) / 2 for n in size)
    u, v = (axis * plane(zoom[:, k]) for k, axis in enumerate((x[None, :], y[:, None])))
    knots = [torch.arange(-1, n // spacing + 2, device=images.device) * spacing - (n - 1) / 2 for n in size]
    bends = draw.normal(b, 2, len(knots[0]), len(knots[1])) * spread(draw.uniform(0, elastic, b))
    width = torch.full((), 0.5 * spacing, device=images.device)
    bends = bell(y, knots[0], width) @ bends @ bell(x, knots[1], width).mT
    moved = bends + draw.uniform(-shift, shift, b, 2, 1, 1)
    columns = plane(cos) * u - plane(sin) * v + moved[:, 0]
    rows = plane(sin) * u + plane(cos) * v + moved[:, 1]
    grid = torch.stack([columns * (2 / images.shape[3]), rows * (2 / images.shape[2])], -1)
    both = torch.cat([images, labels.to(images.dtype)], 1)
    both = F.grid_sample(both, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return both[:, :-1], (both[:, -1:] >= 0.5).to(images.dtype)


def open_window(images: torch.Tensor) -> torch.Tensor:
    """Values 0..1 with zeros lowered to what fat has, and what lies between fat and tissue in proportion."""
    return images - FAT * (1 - images / EDGE).clamp(min=0)


def shift_liver(
    images: torch.Tensor, labels: torch.Tensor, draw: Draw, hu: tuple[float, float] = (-90, 40), edge: float = 1.0
) -> torch.Tensor:
    """The liver as a whole, with what lies in it, darker or brighter by `hu`; soft by a Gaussian of `edge` pixels."""
    soft = smooth(labels, torch.full((len(labels),), edge, device=labels.device))
    return images + soft * spread(draw.uniform(*hu, len(images))) * HU


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
    """One to `number` ellipses on each slice, while its label stays as it is.

    Those that spare the liver are masses, fluid and contrast agent in stomach and bowel, of which a few dozen scans
    show too few, so that a network takes whatever is as bright as some liver for one. The others are lesions that are
    part of the liver, and the reason why an ellipse as such means nothing.

    Args:
        radius: of the half-axes, smallest and greatest, pixels.
        brightness: 0 to 1 is the window.
        opacity: how much is the ellipse's; the rest is what lies under it, with its texture.
        spare: whether the liver is spared.
    """
    b, _, h, w = images.shape
    body = F.avg_pool2d((images[:, :1] > 0).float(), 4, ceil_mode=True)
    columns = body.shape[3]
    centre = torch.multinomial(body.flatten(1) + 1e-6, number, replacement=True, generator=draw.pixels)
    angle, bright = draw.uniform(0, math.pi, b, number), draw.uniform(*brightness, b, number)
    axes = draw.uniform(*radius, b, number, 2)
    some = draw.uniform(0, number, b, 1) > torch.arange(number, device=images.device)
    share = draw.uniform(*opacity, b, number) * some
    free = 1 - labels if spare else torch.ones_like(labels)
    rows, cols = torch.arange(h, device=images.device), torch.arange(w, device=images.device)
    for k in range(number):
        y = (rows - (centre[:, k, None] // columns) * 4)[:, :, None]
        x = (cols - (centre[:, k, None] % columns) * 4)[:, None, :]
        cos, sin = torch.cos(angle[:, k])[:, None, None], torch.sin(angle[:, k])[:, None, None]
        u, v = (x * cos + y * sin) / axes[:, k, 0, None, None], (y * cos - x * sin) / axes[:, k, 1, None, None]
        inside = ((1 - (u * u + v * v).sqrt()) * axes[:, k].min(1).values[:, None, None] + 0.5).clamp(0, 1)
        images = torch.lerp(images, spread(bright[:, k]), spread(share[:, k]) * inside[:, None] * free)
    return images


def curve(images: torch.Tensor, draw: Draw, knots: int = 6, strength: float = 0.7) -> torch.Tensor:
    """A random rising curve through (0, 0) and (1, 1): `knots` pieces, whose slopes vary by exp(`strength`)."""
    b = len(images)
    rises = torch.softmax(strength * draw.normal(b, knots), dim=1)
    starts = torch.cumsum(rises, 1) - rises
    inside = images.clamp(0, 1)
    piece = (inside * knots).long().clamp(max=knots - 1).flatten(1)
    pick = lambda values: values.gather(1, piece).view_as(images)  # noqa: E731
    return images - inside + pick(starts) + pick(rises) * (inside * knots - piece.view_as(images))


def gamma(images: torch.Tensor, draw: Draw, least: float = 0.65, greatest: float = 1.6) -> torch.Tensor:
    """`image ** gamma` within the window; gamma is log-uniform."""
    power = torch.exp(draw.uniform(math.log(least), math.log(greatest), len(images)))
    inside = images.clamp(0, 1)
    return images - inside + inside ** spread(power)


def contrast(
    images: torch.Tensor,
    draw: Draw,
    factor: tuple[float, float] = (0.7, 1.25),
    offset: tuple[float, float] = (-0.15, 0.08),
) -> torch.Tensor:
    """Contrast about the window's middle, then brightness."""
    b = len(images)
    return (images - 0.5) * spread(draw.uniform(*factor, b)) + 0.5 + spread(draw.uniform(*offset, b))


def shallow_network(images: torch.Tensor, draw: Draw, channels: int = 4, most: float = 0.7) -> torch.Tensor:
    """A random network of two convolutions, mixed with the image it is given: other contrasts and textures.

    As in single-source domain generalisation. Here black stays black, and mean and spread of what is not black stay.

    Args:
        channels: between the two convolutions, of 3 x 3 and 1 x 1 pixels.
        most: greatest share of the network's output.
    """
    b, c, h, w = images.shape
    x = images.clamp(min=0)
    kernels = draw.normal(b, channels, 1, 3, 3) / 3
    kernels[:, : channels // 2, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] *= 0.2  # half mostly intensity
    bias, mix = draw.normal(b, channels) * 0.3, draw.normal(b, channels)
    flat = F.pad(x, (1,) * 4, mode="replicate").transpose(0, 1).reshape(c, b, h + 2, w + 2)
    hidden = F.leaky_relu(
        F.conv2d(flat, kernels.flatten(0, 1), bias.flatten(), groups=b).view(c, b, channels, h, w), 0.1
    )
    hidden = hidden - F.leaky_relu(bias, 0.1)[None, :, :, None, None]
    out = torch.einsum("cbkhw,bk->bchw", hidden, mix)
    tissue = (x > 0).to(x.dtype)
    count = tissue.sum((1, 2, 3), keepdim=True).clamp(min=1)

    def moments(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = (values * tissue).sum((1, 2, 3), keepdim=True) / count
        variance = ((values - mean) ** 2 * tissue).sum((1, 2, 3), keepdim=True) / count
        return mean, variance.sqrt().clamp(min=1e-3)

    (mean, sd), (out_mean, out_sd) = moments(x), moments(out)
    out = ((out - out_mean) / out_sd * sd + mean) * tissue
    return torch.where(images > 0, torch.lerp(images, out, spread(draw.uniform(0, most, b))), images)


def filtered(
    images: torch.Tensor, draw: Draw, sd: tuple[float, float] = (0.5, 1.5), amount: tuple[float, float] = (-1.0, 1.0)
) -> torch.Tensor:
    """Blurred by a Gaussian of `sd` pixels (amount 1), or sharpened by an unsharp mask with it (below 0)."""
    b = len(images)
    return torch.lerp(images, smooth(images, draw.uniform(*sd, b)), spread(draw.uniform(*amount, b)))


def noise(
    images: torch.Tensor, draw: Draw, hu: tuple[float, float] = (0, 25), grain: tuple[float, float] = (0.4, 2.0)
) -> torch.Tensor:
    """Noise of a standard deviation `hu` and any texture: from sharp kernels' (high frequencies only) to coarse grains.

    Args:
        hu: on this grid; a low-pass to 1.75 mm leaves about half of what a slice with pixels of 0.7 mm has.
        grain: standard deviation of the Gaussian that makes coarse grains, pixels.
    """
    b = len(images)
    white = draw.normal(*images.shape)
    coarse = smooth(white, draw.uniform(*grain, b))
    texture = spread(draw.uniform(-1, 1, b))
    field = torch.where(texture > 0, torch.lerp(white, coarse, texture.clamp(min=0)), white + texture * coarse)
    return images + field / field.std((1, 2, 3), keepdim=True) * spread(draw.uniform(*hu, b)) * HU


def cut(
    images: torch.Tensor, labels: torch.Tensor, draw: Draw, reach: tuple[float, float] = (0.55, 1.0)
) -> tuple[torch.Tensor, torch.Tensor]:
    """A smaller field of view: nothing outside a circle, or beyond a line, and no liver there.

    Args:
        reach: of the circle's radius, or the line's distance from the middle, in parts of half the slice's width.
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


@dataclass
class Augmentation:
    """What is done to a batch, in this order, each with its probability for each slice; its ranges are its defaults.

    Args:
        size: of the patch that comes out, pixels; `None`: that of what goes in.
        spatial, liver, ...: probabilities.
    """

    size: tuple[int, int] | None = None
    liver: float = 0.5
    beside: float = 0.5
    within: float = 0.25
    organs: float = 0.5
    curve: float = 0.3
    gamma: float = 0.3
    contrast: float = 0.5
    network: float = 0.2
    agent: float = 0.4
    filtered: float = 0.3
    noise: float = 0.4
    cut: float = 0.1

    def __call__(
        self, images: torch.Tensor, labels: torch.Tensor, generator: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Images `(B, C, H, W)`, float 0..1, and labels `(B, 1, H, W)`, 0 or 1: the same, augmented, as floats.

        All randomness is the generator's (on the CPU; `None`: PyTorch's own): the same state gives the same batch.
        """
        draw = Draw(images.device, generator)
        images, labels = deform(images, labels, tuple(self.size or images.shape[2:]), draw)
        images = open_window(images)
        steps = (
            (self.liver, lambda x, y: shift_liver(x, y, draw)),
            (self.beside, lambda x, y: ellipses(x, y, draw, 3, (4, 40), (0, 1.4), (0.6, 1), True)),
            (self.within, lambda x, y: ellipses(x, y, draw, 3, (2, 20), (0, 0.7), (0.6, 1), False)),
            (self.organs, lambda x, y: ellipses(x, y, draw, 3, (10, 45), (0.1, 0.7), (0.8, 1), True)),
            (self.curve, lambda x, y: curve(x, draw)),
            (self.gamma, lambda x, y: gamma(x, draw)),
            (self.contrast, lambda x, y: contrast(x, draw)),
            (self.network, lambda x, y: shallow_network(x, draw)),
            (self.agent, lambda x, y: ellipses(x, y, draw, 4, (4, 30), (0.9, 1.4), (0.9, 1), True)),
            (self.filtered, lambda x, y: filtered(x, draw)),
            (self.noise, lambda x, y: noise(x, draw)),
        )
        for probability, step in steps:
            chosen = draw.chosen(len(images), probability)
            if len(chosen):
                images[chosen] = step(images[chosen], labels[chosen])
        chosen = draw.chosen(len(images), self.cut)
        if len(chosen):
            images[chosen], labels[chosen] = cut(images[chosen], labels[chosen], draw)
        return images.clamp_(0, 1), labels


class PrepareSlices(PrepareBatch):
    """For MONAI's trainer: a batch of `Slices`, uint8, on its device, as floats 0..1, augmented.

    Args:
        augmentation: `None`: none.
    """

    def __init__(self, augmentation: Augmentation | None = None):
        self.augmentation = augmentation

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        images, labels = (batchdata[key].to(device, non_blocking=non_blocking).float() for key in ("image", "label"))
        images /= LEVELS
        return (images, labels) if self.augmentation is None else self.augmentation(images, labels)
