"""The networks that the paper compares (Tables 2 to 4), and four of today's: all by one name, all of one kind.

Every network takes slices `(B, 1, H, W)`, H and W divisible by 16, and returns logits of the same size. Those of the
paper start from He normal convolutions and use PyTorch's batch normalisation, so that the networks differ by their
structure alone; MONAI's start as MONAI starts them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import torch.nn as nn

from ..networks import RAVNet
from .bcdunet import BCDUNet
from .csnet import CS2Net
from .level_set import LevelSetd
from .peers import NNUNet, UNetPlusPlus, attention_unet, segresnet
from .saunet import SAUNet
from .unet import FResUNet, UNet

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "U-Net": UNet,
    "Res U-Net": partial(UNet, encoder="residual"),
    "Res2 U-Net": partial(UNet, encoder="res2"),
    "CofRes U-Net": partial(UNet, encoder="cofres"),
    "SA-UNet": SAUNet,
    "BCDU-Net D1": partial(BCDUNet, dense=1),
    "BCDU-Net D3": partial(BCDUNet, dense=3),
    "CS2-Net": CS2Net,
    "Mo": FResUNet,
    "CSDResU-Net": partial(UNet, encoder="separable", decoder="separable"),
    "ULSM-Net": UNet,
    "RA V-Net without CofRes": partial(RAVNet, encoder="plain"),
    "RA V-Net": RAVNet,
    "Attention U-Net": attention_unet,
    "U-Net++": UNetPlusPlus,
    "DynUNet": NNUNet,
    "SegResNet": segresnet,
}
"""Display name -> callable of `in_channels=1, out_channels=1, width=<its own paper's>`."""

OUR_READING = {
    "Mo": "Public is the abstract of a thesis with Table 4's DSC and JSC: a U-Net with an improved residual module in "
    "the place of the convolutions, and skips that bring the decoder features of several scales. Here the module is "
    "the basic residual block, and each skip is fused from its own and all finer levels. It was trained with cross "
    "entropy and Dice, here with the loss of all.",
    "CSDResU-Net": "Public is the abstract: residual units, depthwise separable and dilated convolutions in one U-Net, "
    "in a cascade (the liver, then tumours in it). Here it is the liver's stage: every block is residual, of two "
    "separable convolutions, the second of dilation 2.",
    "ULSM-Net": "Public is the title: a fusion of U-Net and level set. Here a geodesic active contour refines U-Net's "
    "mask slice by slice.",
}
"""Display name -> what is public of a network of Table 4 without code or open text, and what is ours."""

REFINEMENTS: dict[str, Callable[..., LevelSetd]] = {"ULSM-Net": LevelSetd}
"""Display name -> transform of the mask that belongs to the method; the others have none."""


def build(name: str, scale: float = 1.0, in_channels: int = 1, out_channels: int = 1) -> nn.Module:
    """A network of `NETWORKS`, its filters at `scale` times those of its paper.

    Args:
        name: a key of `NETWORKS`.
        scale: of the width; 1 is the paper's size, 0.5 is about a quarter of the parameters.
        in_channels: channels of the input.
        out_channels: channels of the output.

    Raises:
        ValueError: where there is no such network, or its width at this scale is not a whole, fitting number.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network is named {name!r}: there are {', '.join(NETWORKS)}.")
    full = inspect.signature(NETWORKS[name]).parameters["width"].default
    width = full * scale
    if width < 1 or width != int(width):
        raise ValueError(f"scale must leave {name} a whole number of its {full} filters, got {scale}: {width:g}.")
    return NETWORKS[name](in_channels=in_channels, out_channels=out_channels, width=int(width))
