"""The networks that the paper compares (Tables 2 to 4), and four of MONAI's, by name.

Every network takes slices `(B, 1, H, W)`, H and W divisible by 16, and returns logits of the same size. Those of the
paper start from He normal convolutions and use PyTorch's batch normalisation, so that they differ only in their
structure. MONAI's keep MONAI's initialisation.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

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
"""Name in tables -> callable of `in_channels=1, out_channels=1, width=<its own paper's>`."""

OUR_READING = {
    "Mo": "Only the abstract of a thesis is public, with Table 4's DSC and JSC: a U-Net with an improved residual "
    "module instead of the convolutions, and skips that bring the decoder features of several scales. Here the module "
    "is the basic residual block, and each skip is fused from its own and all finer levels. It was trained with cross "
    "entropy and Dice, here with the same loss as all.",
    "CSDResU-Net": "Only the abstract is public: residual units, depthwise separable and dilated convolutions in one "
    "U-Net, in a cascade (the liver, then its tumours). Here it is the liver's stage: every block is residual, with "
    "two separable convolutions, the second of dilation 2.",
    "ULSM-Net": "Only the title is public: a fusion of U-Net and level set. Here a geodesic active contour refines "
    "U-Net's mask slice by slice.",
}
"""Name in tables -> for a network of Table 4 without public code or text: the published part, and our part."""

REFINEMENTS: dict[str, Callable[..., LevelSetd]] = {"ULSM-Net": LevelSetd}
"""Name in tables -> transform of the mask that belongs to the method."""


def build(
    name: str, scale: float = 1.0, in_channels: int = 1, out_channels: int = 1, prior: float | None = None, **more: Any
) -> nn.Module:
    """A network of `NETWORKS`, with `scale` times the filters of its paper.

    Args:
        name: a key of `NETWORKS`.
        scale: of the width; 1 is the paper's size, 0.5 is about a quarter of the parameters.
        in_channels: channels of the input.
        out_channels: channels of the output.
        prior: the share of pixels that are liver, with which the last layer's bias starts; `None`: its own start.
        more: arguments of only this network.

    Raises:
        ValueError: an unknown network, a scale that does not give a valid width, or a prior that is no share.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network is named {name!r}: there are {', '.join(NETWORKS)}.")
    if prior is not None and not 0 < prior < 1:
        raise ValueError(f"prior must lie between 0 and 1, got {prior}.")
    full = inspect.signature(NETWORKS[name]).parameters["width"].default
    width = full * scale
    if width < 1 or width != int(width):
        raise ValueError(f"scale must leave {name} a whole number of its {full} filters, got {scale}: {width:g}.")
    network = NETWORKS[name](in_channels=in_channels, out_channels=out_channels, width=int(width), **more)
    if prior is not None:
        convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
        *_, bias = (one.bias for one in convolutions if one.bias is not None and one.out_channels == out_channels)
        nn.init.constant_(bias, math.log(prior / (1 - prior)))
    return network
