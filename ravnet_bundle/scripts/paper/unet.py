"""U-Net (Ronneberger et al. 2015), and the rivals that are a U-Net with another block or other skips."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn as nn
from monai.networks.blocks import UnetResBlock

from ..blocks import CofRes, ConvBNReLU, DoubleConv, check_size, he_normal


class Residual(UnetResBlock):
    """Basic residual block (He et al. 2016), with a projection: `(B, in, H, W) -> (B, out, H, W)`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(2, in_channels, out_channels, 3, 1, "batch", ("relu", {"inplace": True}))


class ConvBN(nn.Sequential):
    """1 x 1 convolution (no bias) with batch normalisation: `(B, in, H, W) -> (B, out, H, W)`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))


class Res2(nn.Module):
    """Res2Net's module (Gao et al. 2021), scale 4, no expansion: `(B, in, H, W) -> (B, out, H, W)`.

    The result of a 1 x 1 convolution is split in four. The first part is kept; the others are convolved (3 x 3), the
    third and fourth after adding the previous result. A 1 x 1 convolution fuses them. The shortcut is projected if the
    channels differ.

    `out_channels` is divisible by 4.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        if out_channels % 4:
            raise ValueError(f"Res2 needs out_channels divisible by 4, got {out_channels}.")
        quarter = out_channels // 4
        self.project: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.project = ConvBN(in_channels, out_channels)
        self.enter = ConvBNReLU(in_channels, out_channels, 1)
        self.convs = nn.ModuleList(ConvBNReLU(quarter, quarter, 3) for _ in range(3))
        self.fuse = ConvBN(out_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.enter(x).chunk(4, dim=1)  # four of (B, C/4, H, W)
        results = [parts[0]]
        for k, conv in enumerate(self.convs):
            part = parts[k + 1]
            results.append(conv(part if k == 0 else part + results[k]))
        return torch.relu(self.fuse(torch.cat(results, dim=1)) + self.project(x))


class SeparableResidual(nn.Module):
    """Residual block of two depthwise separable convolutions, the second dilated: `(B, in, H, W) -> (B, out, H, W)`.

    Each is a 3 x 3 convolution of each channel, then a 1 x 1 convolution of all, then batch normalisation.
    Our reading of CSDResU-Net (Yu et al. 2021): "residual unit, depthwise separable" and "dilated convolution" in one.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.project: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.project = ConvBN(in_channels, out_channels)
        self.near = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.mix1 = ConvBN(in_channels, out_channels)
        self.wide = nn.Conv2d(out_channels, out_channels, 3, padding=2, dilation=2, groups=out_channels, bias=False)
        self.mix2 = ConvBN(out_channels, out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.mix1(self.near(x)))
        return torch.relu(self.mix2(self.wide(y)) + self.project(x))


BLOCKS: dict[str, Callable[[int, int], nn.Module]] = {
    "plain": DoubleConv,
    "residual": Residual,
    "res2": Res2,
    "cofres": CofRes,
    "separable": SeparableResidual,
}


class UNet(nn.Module):
    """U-Net with batch normalisation: `(B, in_channels, H, W) -> (B, out_channels, H, W)` logits, H, W divisible by 16.

    Five encoder levels of w to 16w filters with 2 x 2 max pooling between them; four times a 2 x 2 transposed
    convolution to half the channels, concatenated behind the skip, and a block; 1 x 1 head.

    Args:
        width: w; 64 in the paper.
        encoder: block of the encoder and the bottom: "plain" (U-Net), "residual", "res2", "cofres" or "separable".
        decoder: block of the decoder; "plain" in the paper's own networks, which differ only in the encoder.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 64,
        encoder: str = "plain",
        decoder: str = "plain",
    ):
        super().__init__()
        for name in (encoder, decoder):
            if name not in BLOCKS:
                raise ValueError(f"encoder and decoder must be of {', '.join(BLOCKS)}, got {name!r}.")
        down, back = BLOCKS[encoder], BLOCKS[decoder]
        self.level1 = down(in_channels, width)
        self.level2 = down(width, 2 * width)
        self.level3 = down(2 * width, 4 * width)
        self.level4 = down(4 * width, 8 * width)
        self.pool = nn.MaxPool2d(2)
        self.bottom = down(8 * width, 16 * width)
        self.up4 = nn.ConvTranspose2d(16 * width, 8 * width, 2, 2)
        self.back4 = back(16 * width, 8 * width)
        self.up3 = nn.ConvTranspose2d(8 * width, 4 * width, 2, 2)
        self.back3 = back(8 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.back2 = back(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.back1 = back(2 * width, width)
        self.head = nn.Conv2d(width, out_channels, 1)
        self.apply(he_normal)

    def skips(self, s1: torch.Tensor, s2: torch.Tensor, s3: torch.Tensor, s4: torch.Tensor) -> list[torch.Tensor]:
        """The skips, from the encoder's levels to the decoder's."""
        return [s1, s2, s3, s4]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_size(x, "UNet")
        s1 = self.level1(x)  # (B, w, H, W)
        s2 = self.level2(self.pool(s1))  # (B, 2w, H/2, W/2)
        s3 = self.level3(self.pool(s2))  # (B, 4w, H/4, W/4)
        s4 = self.level4(self.pool(s3))  # (B, 8w, H/8, W/8)
        x = self.bottom(self.pool(s4))  # (B, 16w, H/16, W/16)
        s1, s2, s3, s4 = self.skips(s1, s2, s3, s4)
        x = self.back4(torch.cat([s4, self.up4(x)], dim=1))  # (B, 8w, H/8, W/8)
        x = self.back3(torch.cat([s3, self.up3(x)], dim=1))  # (B, 4w, H/4, W/4)
        x = self.back2(torch.cat([s2, self.up2(x)], dim=1))  # (B, 2w, H/2, W/2)
        x = self.back1(torch.cat([s1, self.up1(x)], dim=1))  # (B, w, H, W)
        return self.head(x)  # (B, out_channels, H, W)


class FResUNet(UNet):
    """Our reading of Mo et al. 2021: residual blocks everywhere, and skips of several scales.

    Published: an improved residual module replaces the convolutions; skips bring features of several scales. Ours: the
    module is the basic residual block; a level's skip fuses its own and all finer levels' features, max-pooled to its
    size as in UNet 3+, to its own channels by a 1 x 1 convolution.

    Args:
        width: w, as in `UNet`.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 64):
        super().__init__(in_channels, out_channels, width, encoder="residual", decoder="residual")
        self.fuse2 = ConvBNReLU(3 * width, 2 * width, 1)
        self.fuse3 = ConvBNReLU(7 * width, 4 * width, 1)
        self.fuse4 = ConvBNReLU(15 * width, 8 * width, 1)
        self.apply(he_normal)  # the three new ones too

    def skips(self, s1: torch.Tensor, s2: torch.Tensor, s3: torch.Tensor, s4: torch.Tensor) -> list[torch.Tensor]:
        two = torch.cat([self.pool(s1), s2], dim=1)  # (B, 3w, H/2, W/2)
        three = torch.cat([self.pool(two), s3], dim=1)  # (B, 7w, H/4, W/4)
        four = torch.cat([self.pool(three), s4], dim=1)  # (B, 15w, H/8, W/8)
        return [s1, self.fuse2(two), self.fuse3(three), self.fuse4(four)]
