"""CS2-Net for slices (Mou et al. 2021, arXiv 2010.07486): a residual U-Net with spatial and channel attention."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..blocks import ChannelAttention, check_size, he_normal


class Convs(nn.Sequential):
    """Two 3 x 3 convolutions with bias, batch normalisation and ReLU: `(B, in, H, W) -> (B, out, H, W)`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )


class Encode(nn.Module):
    """Encoder level: two convolutions plus a projection, and ReLU: `(B, in, H, W) -> (B, out, H, W)`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.convs = Convs(in_channels, out_channels)
        self.project = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.convs(x) + self.project(x))


class Decode(nn.Module):
    """Decoder level: `(B, 2C, H, W)` and skip `(B, C, 2H, 2W) -> (B, C, 2H, 2W)`."""

    def __init__(self, channels: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, 2)
        self.convs = Convs(2 * channels, channels)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        return self.convs(torch.cat([skip, self.up(x)], dim=1))


class SpatialAttention(nn.Module):
    """Spatial attention block (its section 3.3): `(B, C, H, W) -> (B, C, H, W)`.

    `x + gain V softmax(Q^T K)^T` over the pixels, unscaled. A 1 x 3 convolution makes the queries and a 3 x 1 the keys,
    with C/8 channels, batch normalisation and ReLU; a 1 x 1 convolution makes the values. The gain starts at 0.
    """

    def __init__(self, channels: int):
        super().__init__()
        eighth = channels // 8
        self.query = nn.Sequential(
            nn.Conv2d(channels, eighth, (1, 3), padding=(0, 1)), nn.BatchNorm2d(eighth), nn.ReLU(inplace=True)
        )
        self.key = nn.Sequential(
            nn.Conv2d(channels, eighth, (3, 1), padding=(1, 0)), nn.BatchNorm2d(eighth), nn.ReLU(inplace=True)
        )
        self.value = nn.Conv2d(channels, channels, 1)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.query(x), self.key(x), self.value(x)  # (B, C/8 or C, H, W)
        query, key, value = [y.flatten(2).transpose(1, 2) for y in (query, key, value)]  # (B, N, C/8 or C)
        attended = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return x + self.gain * attended.transpose(1, 2).reshape(x.shape)


class CS2Net(nn.Module):
    """CS2-Net in 2D: `(B, in_channels, H, W) -> (B, out_channels, H, W)` logits, H and W divisible by 16.

    Args:
        width: w, filters of the first level; 32 in its paper.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 32):
        super().__init__()
        self.level1 = Encode(in_channels, width)
        self.level2 = Encode(width, 2 * width)
        self.level3 = Encode(2 * width, 4 * width)
        self.level4 = Encode(4 * width, 8 * width)
        self.pool = nn.MaxPool2d(2)
        self.bottom = Encode(8 * width, 16 * width)
        self.space = SpatialAttention(16 * width)
        self.channels = ChannelAttention("inverse")
        self.decode4 = Decode(8 * width)
        self.decode3 = Decode(4 * width)
        self.decode2 = Decode(2 * width)
        self.decode1 = Decode(width)
        self.head = nn.Conv2d(width, out_channels, 1)
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_size(x, "CS2Net")
        s1 = self.level1(x)  # (B, w, H, W)
        s2 = self.level2(self.pool(s1))  # (B, 2w, H/2, W/2)
        s3 = self.level3(self.pool(s2))  # (B, 4w, H/4, W/4)
        s4 = self.level4(self.pool(s3))  # (B, 8w, H/8, W/8)
        x = self.bottom(self.pool(s4))  # (B, 16w, H/16, W/16)
        x = x + self.space(x) + self.channels(x)
        x = self.decode4(x, s4)  # (B, 8w, H/8, W/8)
        x = self.decode3(x, s3)  # (B, 4w, H/4, W/4)
        x = self.decode2(x, s2)  # (B, 2w, H/2, W/2)
        x = self.decode1(x, s1)  # (B, w, H, W)
        return self.head(x)  # (B, out_channels, H, W)
