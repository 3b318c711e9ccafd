"""RA V-Net (Lee et al. 2021): a residual, attention, V-shaped network for liver segmentation in axial CT slices."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
import torch.nn as nn
from torch.utils.checkpoint import checkpoint

from .blocks import AttentionRecovery, ChannelAttention, CofRes, DoubleConv, check_size, he_normal


class RAVNet(nn.Module):
    """RA V-Net (Figure 1): slices `(B, in_channels, H, W) -> (B, out_channels, H, W)` logits, H and W divisible by 16.

    Encoder of four CofRes levels (w, 2w, 4w, 8w filters, 2 x 2 max pooling), a CofRes with channel attention at the
    bottom, decoder of four attention recovery modules, 1 x 1 head. The defaults are the paper's network, of 29,940,610
    parameters. The sigmoid is the loss's and the post-processing's.

    Args:
        in_channels: channels of the input; 1, a windowed CT slice scaled to 0..1.
        out_channels: channels of the output; 1, the logit of the liver.
        width: w, filters of the first level, divisible by 4; 64 in the paper.
        dropout: probability of dropping an element after each normalisation; none in the paper.
        affinity: of the channel attention: "softmax" (the paper), "inverse" or "scaled", see `ChannelAttention`.
        attention_at: "bottom" (the paper), "skips" for every skip too, or "none".
        jumps: of CofRes: "all" or "pairs", see `CofRes`.
        lstm_ratio: filters of the ConvLSTM as a part of its input's; 1 in the paper, 0.5 in BCDU-Net.
        skip_first: give the ConvLSTM the skip before the upsampled features; the paper's order is not stated.
        encoder: "cofres" (the paper), or "plain": two convolutions instead of each CofRes, the network "without CofRes"
            of Tables 3 and 4.
        checkpointing: do not keep the features inside the blocks; the backward pass computes them again
            (`torch.utils.checkpoint`). The gradients are the same. It needs less memory and one more forward pass.
            TorchScript cannot compile such a network.

    Raises:
        ValueError: an argument has no meaning, or the height or width of an input is not divisible by 16.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        width: int = 64,
        dropout: float = 0.0,
        affinity: str = "softmax",
        attention_at: str = "bottom",
        jumps: str = "all",
        lstm_ratio: float = 1.0,
        skip_first: bool = False,
        encoder: str = "cofres",
        checkpointing: bool = False,
    ):
        super().__init__()
        if width < 4 or width % 4:
            raise ValueError(f"width must be a positive multiple of 4, got {width}.")
        if attention_at not in ("bottom", "skips", "none"):
            raise ValueError(f'attention_at must be "bottom", "skips" or "none", got {attention_at!r}.')
        if encoder not in ("cofres", "plain"):
            raise ValueError(f'encoder must be "cofres" or "plain", got {encoder!r}.')
        block = partial(DoubleConv, dropout=dropout)
        if encoder == "cofres":
            block = partial(CofRes, jumps=jumps, dropout=dropout)
        self.level1 = block(in_channels, width)
        self.level2 = block(width, 2 * width)
        self.level3 = block(2 * width, 4 * width)
        self.level4 = block(4 * width, 8 * width)
        self.pool = nn.MaxPool2d(2)
        self.bottom = block(8 * width, 8 * width)
        self.attention = nn.Identity() if attention_at == "none" else ChannelAttention(affinity)
        every = attention_at == "skips"
        self.skips = nn.ModuleList(ChannelAttention(affinity) if every else nn.Identity() for _ in range(4))
        recover = partial(AttentionRecovery, lstm_ratio=lstm_ratio, skip_first=skip_first, dropout=dropout)
        self.recover4 = recover(8 * width)
        self.recover3 = recover(4 * width)
        self.recover2 = recover(2 * width)
        self.recover1 = recover(width)
        self.head = nn.Conv2d(width // 2, out_channels, 1)
        self.apply(he_normal)
        self.to(memory_format=torch.channels_last)  # also where a host (MONAI Label) moves it itself
        if checkpointing:
            blocks = (self.level1, self.level2, self.level3, self.level4, self.bottom)
            for module in (*blocks, self.recover4, self.recover3, self.recover2, self.recover1):
                setattr(module, "forward", partial(_checkpointed, module, module.forward))  # noqa: B010

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        check_size(x, "RAVNet")
        s1 = self.level1(x)  # (B, w, H, W)
        s2 = self.level2(self.pool(s1))  # (B, 2w, H/2, W/2)
        s3 = self.level3(self.pool(s2))  # (B, 4w, H/4, W/4)
        s4 = self.level4(self.pool(s3))  # (B, 8w, H/8, W/8)
        x = self.attention(self.bottom(self.pool(s4)))  # (B, 8w, H/16, W/16)
        x = self.recover4(x, self.skips[3](s4))  # (B, 4w, H/8, W/8)
        x = self.recover3(x, self.skips[2](s3))  # (B, 2w, H/4, W/4)
        x = self.recover2(x, self.skips[1](s2))  # (B, w, H/2, W/2)
        x = self.recover1(x, self.skips[0](s1))  # (B, w/2, H, W)
        return self.head(x)  # (B, out_channels, H, W)


def _checkpointed(module: nn.Module, forward: Callable[..., torch.Tensor], *inputs: torch.Tensor) -> torch.Tensor:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(
        forward, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_kept(module))
    )


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Batch normalisations count a batch once: the second forward pass does not change the running statistics."""
    norms = [norm for norm in module.modules() if isinstance(norm, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
            norm.num_batches_tracked -= 1
