"""How a two-dimensional network sees a batch of slices or a whole volume."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.inferers import Inferer


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster on the device: on CUDA since Ampere, on CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class AxialInferer(Inferer):
    """Runs a network of axial slices on slices `(B, C, H, W)` or, slice by slice, on volumes `(B, 1, X, Y, Z)`.

    Slices of a volume go through the network in batches, zero-padded to a multiple of `divisor` and cropped back.
    Logits come back as float32, on the input's device and grid.

    `CoarseFirst` sets `coarse`: a volume's pixels become this many times as large before the network.

    Args:
        batch_size: slices in one forward pass over a volume.
        divisor: height and width of the network's input are multiples of it.
        amp: use bfloat16 autocast where the device is faster with it.
        seen: offsets of the slices that become the channels; 0 is the slice to segment and stands in the middle.
            `[-2, 0, 2]` gives three channels. Beyond the volume's end the last slice is repeated.
    """

    def __init__(self, batch_size: int = 8, divisor: int = 16, amp: bool = True, seen: Sequence[int] = (0,)):
        super().__init__()
        self.batch_size, self.divisor, self.amp, self.seen = batch_size, divisor, amp, tuple(seen)
        self.coarse = 1

    def __call__(
        self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        plain = inputs.as_tensor() if hasattr(inputs, "as_tensor") else inputs  # a MetaTensor slows every operation
        if plain.ndim == 4:
            return self._forward(plain, network, *args, **kwargs)
        if plain.ndim != 5:
            raise ValueError(f"AxialInferer needs (B, C, H, W) or (B, C, X, Y, Z), got shape {tuple(plain.shape)}.")
        _, _, *plane, depth = plain.shape
        size = None if self.coarse == 1 else [max(1, n // self.coarse) for n in plane]
        logits = torch.stack([self.slices(volume, range(depth), size, network, *args, **kwargs) for volume in plain])
        return logits if size is None else F.interpolate(logits, (*plane, depth), mode="trilinear")

    def slices(
        self,
        volume: torch.Tensor,
        at: Sequence[int],
        size: Sequence[int] | None,
        network: Callable[..., torch.Tensor],
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Logits `(C', X', Y', N)` for N slices of a volume `(1, X, Y, Z)`, shrunk to `size` before the network."""
        logits = []
        for i in range(0, len(at), self.batch_size):
            stack = self.stacked(volume, at[i : i + self.batch_size])
            if size is not None:
                stack = F.interpolate(stack.float(), size, mode="bilinear", antialias=True)
            logits.append(self._forward(stack, network, *args, **kwargs))
        return torch.cat(logits).permute(1, 2, 3, 0)

    def stacked(self, volume: torch.Tensor, at: Sequence[int]) -> torch.Tensor:
        """The network's input for N slices of a volume: `(1, X, Y, Z) -> (N, C, X, Y)`."""
        if len(volume) > 1:
            raise ValueError(f"A volume of one channel is needed, got {len(volume)}: its slices become the channels.")
        planes = torch.tensor(at)[:, None] + torch.tensor(self.seen)
        planes = planes.clamp(0, volume.shape[3] - 1).to(volume.device)
        return volume[0][..., planes].permute(2, 3, 0, 1)

    def _forward(
        self, x: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        height, width = x.shape[2:]
        x = F.pad(x.float(), (0, -width % self.divisor, 0, -height % self.divisor))  # float16 saves caches half
        x = x.contiguous(memory_format=torch.channels_last)
        amp = self.amp and has_fast_bfloat16(x.device)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=amp):
            logits = network(x, *args, **kwargs)
        return logits[:, :, :height, :width].float()
