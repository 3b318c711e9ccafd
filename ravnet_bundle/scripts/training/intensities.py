"""Augmentation of the intensities of a batch of slices on its device, and its random numbers.

Images are float, `(B, C, H, W)`; the window is 0..1, and values may lie outside until the last step.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

HU = 1 / 200  # one HU in units of the window
FAT = 60 * HU  # distance of fat below the window
EDGE = 0.05  # values up to this lie between fat and tissue


class Draw:
    """Random numbers for one batch: few from the CPU's generator; those per pixel from the device's, which it seeds.

    So all choices are known on the CPU, which never waits for a GPU.
    """

    def __init__(self, device: torch.device, generator: torch.Generator | None):
        self.device, self.generator = device, generator
        seed = int(torch.randint(2**62, (1,), generator=generator))
        self.pixels = torch.Generator(device).manual_seed(seed)

    def to(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self.device, non_blocking=True)

    def chosen(self, number: int, probability: float) -> torch.Tensor:
        """Indices of the samples that a step changes."""
        return self.to((torch.rand(number, generator=self.generator) < probability).nonzero()[:, 0])

    def uniform(self, low: float, high: float, *shape: int) -> torch.Tensor:
        return self.to(low + (high - low) * torch.rand(shape, generator=self.generator))

    def normal(self, *shape: int) -> torch.Tensor:
        """From the device's generator, for fields."""
        return torch.randn(shape, generator=self.pixels, device=self.device)


def spread(values: torch.Tensor) -> torch.Tensor:
    """`(B,)` as `(B, 1, 1, 1)`."""
    return values[:, None, None, None]


def bell(points: torch.Tensor, centres: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
    """Gaussian weights `(..., points, centres)` of the distance, each row with sum 1, to smooth by a matrix product."""
    distance = ((points[:, None] - centres) / sd[..., None, None]) ** 2
    weights = torch.exp(-0.5 * distance.clamp(max=40)) * (distance < 40)  # avoids denormal numbers, which are slow
    return weights / weights.sum(-1, keepdim=True)


def smooth(images: torch.Tensor, sd: torch.Tensor) -> torch.Tensor:
    """Smooths images `(B, C, H, W)` by a Gaussian of `sd` pixels, `(B,)`."""
    rows, columns = (torch.arange(n, device=images.device) for n in images.shape[2:])
    sd = sd[:, None].clamp(min=0.1)
    return bell(rows, rows, sd) @ images @ bell(columns, columns, sd).mT


def open_window(images: torch.Tensor) -> torch.Tensor:
    """Lowers zeros to the value of fat, and values up to `EDGE` in proportion."""
    return images - FAT * (1 - images / EDGE).clamp(min=0)


def curve(images: torch.Tensor, draw: Draw, knots: int = 6, strength: float = 0.7) -> torch.Tensor:
    """A random rising curve through (0, 0) and (1, 1) of `knots` pieces; their slopes vary by exp(`strength`)."""
    b = len(images)
    rises = torch.softmax(strength * draw.normal(b, knots), dim=1)
    starts = torch.cumsum(rises, 1) - rises
    inside = images.clamp(0, 1)
    piece = (inside * knots).long().clamp(max=knots - 1).flatten(1)

    def pick(values: torch.Tensor) -> torch.Tensor:
        return values.gather(1, piece).view_as(images)

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
    """Mixes the image with the output of a random network of two convolutions: other contrasts and textures.

    As in single-source domain generalisation. Black stays black; mean and spread of the rest do not change.

    Args:
        channels: between the two convolutions (3 x 3 and 1 x 1 pixels).
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
    images: torch.Tensor, draw: Draw, sd: tuple[float, float] = (0.5, 1.5), amount: tuple[float, float] = (-1.5, 1.0)
) -> torch.Tensor:
    """Blurs by a Gaussian of `sd` pixels (amount 1), or sharpens by an unsharp mask (amount below 0)."""
    b = len(images)
    return torch.lerp(images, smooth(images, draw.uniform(*sd, b)), spread(draw.uniform(*amount, b)))


def noise(
    images: torch.Tensor, draw: Draw, hu: tuple[float, float] = (0, 45), grain: tuple[float, float] = (0.4, 2.0)
) -> torch.Tensor:
    """Adds noise of standard deviation `hu`, from a sharp kernel's (high frequencies only) to coarse grains.

    Args:
        hu: on this grid; averaging pixels of 0.7 mm to 1.75 mm leaves about half of the noise.
        grain: standard deviation of the Gaussian that makes coarse grains, pixels.
    """
    b = len(images)
    white = draw.normal(*images.shape)
    coarse = smooth(white, draw.uniform(*grain, b))
    texture = spread(draw.uniform(-1, 1, b))
    field = torch.where(texture > 0, torch.lerp(white, coarse, texture.clamp(min=0)), white + texture * coarse)
    return images + field / field.std((1, 2, 3), keepdim=True) * spread(draw.uniform(*hu, b)) * HU


def streaks(
    images: torch.Tensor,
    draw: Draw,
    number: int = 12,
    hu: tuple[float, float] = (0, 40),
    width: tuple[float, float] = (1.5, 8.0),
) -> torch.Tensor:
    """Dark and bright bands across the slices, as from arms beside the body or from metal.

    Args:
        number: of bands, all in one direction.
        hu: standard deviation of a band's brightness, drawn for each sample.
        width: distance from a band's middle at which 1/e of it is left, pixels.
    """
    b, c, h, w = images.shape
    y, x = (torch.arange(n, device=images.device) - (n - 1) / 2 for n in (h, w))
    angle = draw.uniform(0, math.pi, b)[:, None, None]
    across = x * torch.sin(angle) + y[:, None] * torch.cos(angle)
    bands = torch.zeros_like(across)
    for _ in range(number):
        at, sd = draw.uniform(-h / 2, h / 2, b), draw.uniform(*width, b)
        shape = torch.exp(-(((across - at[:, None, None]) / sd[:, None, None]) ** 2).clamp(max=40))
        bands += draw.normal(b)[:, None, None] * shape
    strength = spread(draw.uniform(*hu, b)) * draw.uniform(0.5, 1, b, c, 1, 1) * HU
    return images + bands[:, None] * strength
