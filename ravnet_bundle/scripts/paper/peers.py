"""MONAI's networks, at the size of their papers, with the same arguments as the others.

Each takes `(B, in_channels, H, W)`, H and W divisible by 16, and returns logits `(B, out_channels, H, W)`.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from monai.networks.nets import AttentionUnet, BasicUNetPlusPlus, DynUNet, SegResNet


def attention_unet(in_channels: int = 1, out_channels: int = 1, width: int = 64) -> AttentionUnet:
    """Attention U-Net (Oktay et al. 2018): five levels of w to 16w filters; w is 64 in its paper."""
    return AttentionUnet(2, in_channels, out_channels, [width * 2**k for k in range(5)], strides=(2, 2, 2, 2))


class UNetPlusPlus(nn.Module):
    """U-Net++ (Zhou et al. 2018): five levels of w to 16w filters; w is 32 in its paper.

    Without deep supervision, so MONAI's heads of the three shallower networks inside it are removed.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 32):
        super().__init__()
        features = [width * 2**k for k in range(5)] + [width]
        self.net = BasicUNetPlusPlus(2, in_channels, out_channels, features)
        self.net.final_conv_0_1 = self.net.final_conv_0_2 = self.net.final_conv_0_3 = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)[0]


class NNUNet(nn.Module):
    """The network that nnU-Net plans: levels of w to 16w filters, w is 32; eight for 512 x 512, six for 128 x 128.

    It halves the size at each level but the first. So images are zero-padded on the right and below to a multiple of
    that, with at least 4 pixels at the bottom, as in nnU-Net's plans; the logits are cropped. Choose `levels` so that
    the training patch needs no padding: the network gets used to padding, and fails on images with less of it.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, width: int = 32, levels: int = 8):
        super().__init__()
        filters = [width * min(2**k, 16) for k in range(levels)]
        strides = (1,) + (2,) * (levels - 1)
        self.net = DynUNet(2, in_channels, out_channels, (3,) * levels, strides, strides[1:], filters)
        self.unit = 2 ** (levels - 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h, w = x.shape[2], x.shape[3]
        padded = F.pad(x, (0, max(-w % self.unit, 4 * self.unit - w), 0, max(-h % self.unit, 4 * self.unit - h)))
        return self.net(padded)[:, :, :h, :w]


def segresnet(in_channels: int = 1, out_channels: int = 1, width: int = 32) -> SegResNet:
    """SegResNet (Myronenko 2018), in 2D: four levels of w to 8w filters, w divisible by 8; w is 32 in its paper."""
    return SegResNet(2, width, in_channels, out_channels)
