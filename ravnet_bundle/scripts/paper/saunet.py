"""SA-UNet (Guo et al. 2020, arXiv 2004.03696): a small U-Net with DropBlock and spatial attention at the bottom."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F

from ..blocks import check_size, he_normal


class DropBlock(nn.Module):
    """Drops squares of features in training (Ghiasi et al. 2018, arXiv 1810.12890): `(B, C, H, W) -> (B, C, H, W)`.

    In each channel, squares inside the map are drawn at random, so that about `1 - keep` of the features are dropped.
    The others are scaled up to keep the mean of a constant map. Squares are at most as large as the map's shorter side.

    Args:
        size: height and width of a square.
        keep: approximate share of the features that are kept (squares overlap).
    """

    def __init__(self, size: int = 7, keep: float = 0.9):
        super().__init__()
        self.size, self.keep = size, keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        h, w = x.shape[2], x.shape[3]
        size = min(self.size, h, w)
        rows, columns = h - size + 1, w - size + 1  # possible corners of a square
        probability = (1 - self.keep) / (size * size) * (h * w) / (rows * columns)
        corners = torch.rand(x.shape[0], x.shape[1], rows, columns, device=x.device) < probability
        border = size - 1
        dropped = F.max_pool2d(F.pad(corners.float(), (border, border, border, border)), size, stride=1)
        kept = 1 - dropped
        return x * (kept * (kept.numel() / kept.sum().clamp(min=1.0))).to(x.dtype)


class SpatialGate(nn.Module):
    """Spatial attention of CBAM (Woo et al. 2018): `(B, C, H, W) -> (B, C, H, W)`.

    One weight per pixel: mean and maximum over the channels, a 7 x 7 convolution without bias, sigmoid.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)  # (B, 2, H, W)
        return x * torch.sigmoid(self.conv(pooled))


class DropConv(nn.Sequential):
    """3 x 3 convolution, DropBlock, batch normalisation, ReLU: `(B, in, H, W) -> (B, out, H, W)`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1), DropBlock(), nn.BatchNorm2d(out_channels), nn.ReLU()
        )


class Double(nn.Sequential):
    """Two `DropConv`: `(B, in, H, W) -> (B, out, H, W)`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(DropConv(in_channels, out_channels), DropConv(out_channels, out_channels))


class Up(nn.ConvTranspose2d):
    """Keras' 3 x 3 transposed convolution of stride 2, padding "same": `(B, in, H, W) -> (B, out, 2H, 2W)`."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, 3, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv_transpose2d(x, self.weight, self.bias, stride=2)[:, :, :-1, :-1]


class SAUNet(nn.Module):
    """SA-UNet: `(B, in_channels, H, W) -> (B, out_channels, H, W)` logits, H and W divisible by 16 (8 would do).

    Args:
        width: w, filters of the first level; 16 in its paper.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 16):
        super().__init__()
        self.level1 = Double(in_channels, width)
        self.level2 = Double(width, 2 * width)
        self.level3 = Double(2 * width, 4 * width)
        self.pool = nn.MaxPool2d(2)
        self.bottom = nn.Sequential(DropConv(4 * width, 8 * width), SpatialGate(), DropConv(8 * width, 8 * width))
        self.up3 = Up(8 * width, 4 * width)
        self.back3 = Double(8 * width, 4 * width)
        self.up2 = Up(4 * width, 2 * width)
        self.back2 = Double(4 * width, 2 * width)
        self.up1 = Up(2 * width, width)
        self.back1 = Double(2 * width, width)
        self.head = nn.Conv2d(width, out_channels, 1)
        self.apply(he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_size(x, "SAUNet")
        s1 = self.level1(x)  # (B, w, H, W)
        s2 = self.level2(self.pool(s1))  # (B, 2w, H/2, W/2)
        s3 = self.level3(self.pool(s2))  # (B, 4w, H/4, W/4)
        x = self.bottom(self.pool(s3))  # (B, 8w, H/8, W/8)
        x = self.back3(torch.cat([self.up3(x), s3], dim=1))  # (B, 4w, H/4, W/4)
        x = self.back2(torch.cat([self.up2(x), s2], dim=1))  # (B, 2w, H/2, W/2)
        x = self.back1(torch.cat([self.up1(x), s1], dim=1))  # (B, w, H, W)
        return self.head(x)  # (B, out_channels, H, W)
