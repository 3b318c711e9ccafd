"""BCDU-Net (Azad et al. 2019, arXiv 1909.00166): a U-Net with dense convolutions at the bottom and ConvLSTM skips."""

from __future__ import annotations

import torch
import torch.nn as nn

from ..blocks import ConvLSTM, check_size, he_normal


class Convs(nn.Sequential):
    """Two 3 x 3 convolutions with bias and ReLU, without normalisation: `(B, in, H, W) -> (B, out, H, W)`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.ReLU(inplace=True),
        )


class Recover(nn.Module):
    """Decoder level: `(B, 2C, H, W)` and skip `(B, C, 2H, 2W) -> (B, C, 2H, 2W)`.

    2 x 2 transposed convolution with batch normalisation and ReLU, ConvLSTM of C/2 filters over (upsampled, skip) with
    Keras' hard sigmoid, two convolutions.
    """

    def __init__(self, channels: int):
        super().__init__()
        up = nn.ConvTranspose2d(2 * channels, channels, 2, 2)
        self.up = nn.Sequential(up, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
        self.lstm = ConvLSTM(channels, channels // 2, hard=True)
        self.convs = Convs(channels // 2, channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.convs(self.lstm(self.up(x), skip))


class BCDUNet(nn.Module):
    """BCDU-Net: `(B, in_channels, H, W) -> (B, out_channels, H, W)` logits, H and W divisible by 16 (8 would do).

    Args:
        width: w, filters of the first level, even; 64 in its paper.
        dense: pairs of convolutions at the bottom: 1, or 3; the third also gets the first pair's result.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 64, dense: int = 1):
        super().__init__()
        if dense not in (1, 3):
            raise ValueError(f"dense must be 1 or 3, got {dense}.")
        if width % 2:
            raise ValueError(f"BCDUNet needs an even width, got {width}.")
        self.level1 = Convs(in_channels, width)
        self.level2 = Convs(width, 2 * width)
        self.level3 = Convs(2 * width, 4 * width)
        self.pool, self.drop = nn.MaxPool2d(2), nn.Dropout(0.5)
        inputs = (4 * width, 8 * width, 16 * width)[:dense]
        self.bottom = nn.ModuleList(Convs(channels, 8 * width) for channels in inputs)
        self.recover3 = Recover(4 * width)
        self.recover2 = Recover(2 * width)
        self.recover1 = Recover(width)
        self.head = nn.Sequential(
            nn.Conv2d(width, 2, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(2, out_channels, 1)
        )
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_size(x, "BCDUNet")
        s1 = self.level1(x)  # (B, w, H, W)
        s2 = self.level2(self.pool(s1))  # (B, 2w, H/2, W/2)
        s3 = self.level3(self.pool(s2))  # (B, 4w, H/4, W/4)
        x = self.pool(s3)
        first = x
        for k, convs in enumerate(self.bottom):
            x = self.drop(convs(torch.cat([x, first], dim=1) if k == 2 else x))  # (B, 8w, H/8, W/8)
            if k == 0:
                first = x
        x = self.recover3(x, self.drop(s3))  # (B, 4w, H/4, W/4)
        x = self.recover2(x, s2)  # (B, 2w, H/2, W/2)
        x = self.recover1(x, s1)  # (B, w, H, W)
        return self.head(x)  # (B, out_channels, H, W)
