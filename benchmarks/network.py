"""Forward time of RA V-Net beside its own bare convolutions and beside MONAI's networks, as a Markdown table.

    python benchmarks/network.py                      # 512 x 512, two threads
    python benchmarks/network.py --size 256 --repeats 9

"Bare" runs nothing but the convolutions of a real forward pass: every call that reached `aten.convolution`, the
functional ones in ConvLSTM included, on random inputs of the same shape and memory format. All the networks take turns
in every repetition, so that a noisy machine slows them alike; the times are medians.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn as nn
from monai.networks.nets import BasicUNet, DynUNet, SegResNet
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ravnet_bundle"))
from scripts.networks import RAVNet  # noqa: E402


def nnunet_2d() -> DynUNet:
    """The network that nnU-Net plans for slices of 512 x 512: eight levels of 32 to 512 filters."""
    filters = (32, 64, 128, 256, 512, 512, 512, 512)
    strides = (1,) + (2,) * 7
    return DynUNet(2, 1, 1, kernel_size=(3,) * 8, strides=strides, upsample_kernel_size=strides[1:], filters=filters)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], torch.dtype]] = {
    "RAVNet width 64": (lambda: RAVNet(width=64), torch.float32),
    "RAVNet width 64, lstm_ratio 0.5": (lambda: RAVNet(width=64, lstm_ratio=0.5), torch.float32),
    "RAVNet width 32": (lambda: RAVNet(width=32), torch.float32),
    "RAVNet width 16": (lambda: RAVNet(width=16), torch.float32),
    "MONAI BasicUNet": (lambda: BasicUNet(spatial_dims=2, out_channels=1), torch.float32),
    "MONAI SegResNet, init_filters 32": (lambda: SegResNet(2, init_filters=32, out_channels=1), torch.float32),
    "MONAI DynUNet, nnU-Net's 2D plan": (nnunet_2d, torch.float32),
    "RAVNet width 64, bfloat16 channels_last": (lambda: RAVNet(width=64), torch.bfloat16),
    "RAVNet width 32, bfloat16 channels_last": (lambda: RAVNet(width=32), torch.bfloat16),
    "RAVNet width 16, bfloat16 channels_last": (lambda: RAVNet(width=16), torch.bfloat16),
}


class RecordConvolutions(TorchDispatchMode):
    """Keeps the arguments of every convolution that runs inside, its input replaced by random numbers."""

    def __init__(self):
        super().__init__()
        self.calls: list[tuple] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.calls.append((torch.randn_like(args[0]), *args[1:]))  # randn_like keeps the memory format
        return func(*args, **(kwargs or {}))

    def run(self) -> None:
        """Runs the recorded convolutions alone."""
        for arguments in self.calls:
            torch.convolution(*arguments)


class Candidate:
    """One row of the table: a network, its bare convolutions, and the seconds that each took."""

    def __init__(self, name: str, size: int):
        build, dtype = NETWORKS[name]
        self.name, self.reduced = name, dtype == torch.bfloat16
        layout = torch.channels_last if self.reduced else torch.contiguous_format
        self.net = build().eval().to(memory_format=layout)
        self.image = torch.rand(1, 1, size, size).to(memory_format=layout)
        self.convolutions, counter = RecordConvolutions(), FlopCounterMode(display=False)
        with torch.no_grad(), counter, self.convolutions:
            self.forward()
        with torch.inference_mode():  # both once, unmeasured
            self.forward()
            self.convolutions.run()
        self.flops = counter.get_total_flops()
        self.parameters = sum(p.numel() for p in self.net.parameters())
        self.forward_seconds: list[float] = []
        self.bare_seconds: list[float] = []

    def forward(self) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.reduced):
            self.net(self.image)

    @torch.inference_mode()
    def measure(self) -> None:
        self.forward_seconds.append(seconds(self.forward))
        self.bare_seconds.append(seconds(self.convolutions.run))

    def row(self) -> str:
        forward, bare = statistics.median(self.forward_seconds), statistics.median(self.bare_seconds)
        ratio = statistics.median(f / b for f, b in zip(self.forward_seconds, self.bare_seconds))
        cells = (self.name, f"{self.parameters:,}", f"{self.flops / 1e9:.1f}")
        return "| " + " | ".join((*cells, f"{1e3 * forward:.0f}", f"{1e3 * bare:.0f}", f"{ratio:.2f}")) + " |"


def seconds(call: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="height and width, a multiple of 128 (default: 512)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of every network (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    parser.add_argument("--only", default="", help="only the networks whose name contains this")
    arguments = parser.parse_args()
    if arguments.size < 256 or arguments.size % 128:
        parser.error(f"--size must be a multiple of 128 from 256 (nnU-Net's seven halvings), got {arguments.size}")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    candidates = [Candidate(name, arguments.size) for name in NETWORKS if arguments.only in name]
    for _ in range(arguments.repeats):
        for candidate in candidates:
            candidate.measure()
    print(
        f"One slice of {arguments.size} x {arguments.size}, {arguments.threads} threads, PyTorch {torch.__version__}, "
        f"median of {arguments.repeats} turns.\n"
    )
    print("| network | parameters | GFLOPs | forward, ms | bare convolutions, ms | ratio |")
    print("|---|--:|--:|--:|--:|--:|")
    for candidate in candidates:
        print(candidate.row())


if __name__ == "__main__":
    main()
