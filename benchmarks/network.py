"""Size, arithmetic, time and memory of a forward pass of RA V-Net and all its rivals, as a Markdown table.

    python benchmarks/network.py                      # 512 x 512, two threads
    python benchmarks/network.py --size 256 --repeats 9 --only U-Net

"Bare" runs only the convolutions of a forward pass, on random inputs of the same shape and memory format: every call of
`aten.convolution`, with the functional ones in ConvLSTM. "Of the matrix rate" is the network's arithmetic per second,
divided by that of one large convolution (3 x 3, 256 to 256 channels, 128 x 128, batch 8) of the same type in the same
turn. All networks take turns in every repetition, so that a noisy machine slows them equally. Times are medians. Each
turn is a new process, so that its peak of resident memory is only that of its network.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn as nn
from monai.networks.nets import BasicUNet
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ravnet_bundle"))
from scripts.networks import RAVNet  # noqa: E402
from scripts.paper import rivals  # noqa: E402

NETWORKS: dict[str, tuple[Callable[[], nn.Module], torch.dtype]] = {
    **{name: (build, torch.float32) for name, build in rivals.NETWORKS.items()},
    "RA V-Net, lstm_ratio 0.5": (partial(RAVNet, lstm_ratio=0.5), torch.float32),
    "RA V-Net, width 32": (partial(RAVNet, width=32), torch.float32),
    "RA V-Net, width 16": (partial(RAVNet, width=16), torch.float32),
    "MONAI BasicUNet": (partial(BasicUNet, spatial_dims=2, out_channels=1), torch.float32),
    "RA V-Net, bfloat16 channels_last": (RAVNet, torch.bfloat16),
    "RA V-Net, width 32, bfloat16 channels_last": (partial(RAVNet, width=32), torch.bfloat16),
    "RA V-Net, width 16, bfloat16 channels_last": (partial(RAVNet, width=16), torch.bfloat16),
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
        """Runs only the recorded convolutions."""
        for arguments in self.calls:
            torch.convolution(*arguments)


class Turn(NamedTuple):
    """What one process measured of one network."""

    parameters: int
    flops: int
    peak: int  # KiB above the interpreter with all its modules: weights and features
    forward: float  # seconds
    bare: float  # seconds
    rate: float  # FLOP per second of one large convolution


def turn(name: str, size: int, threads: int) -> Turn:
    """One turn of a network, in a process of its own: a pass for its memory, one to record, then one for its time."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    before = memory("VmRSS")
    build, dtype = NETWORKS[name]
    layout = torch.channels_last if dtype == torch.bfloat16 else torch.contiguous_format
    net = build().eval().to(memory_format=layout)
    image = torch.rand(1, 1, size, size).to(memory_format=layout)

    def forward() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            net(image)

    with torch.inference_mode():
        forward()
    peak = memory("VmHWM") - before
    convolutions, counter = RecordConvolutions(), FlopCounterMode(display=False)
    with torch.no_grad(), counter, convolutions:
        forward()
    with torch.inference_mode():
        convolutions.run()  # once, unmeasured, as the pass before it
        times = seconds(forward), seconds(convolutions.run), matrix_rate(dtype)
    return Turn(sum(p.numel() for p in net.parameters()), counter.get_total_flops(), peak, *times)


def matrix_rate(dtype: torch.dtype) -> float:
    """FLOP per second of one large convolution, which is what the machine reaches on this arithmetic."""
    image = torch.rand(8, 256, 128, 128, dtype=dtype).to(memory_format=torch.channels_last)
    conv = nn.Conv2d(256, 256, 3, padding=1, bias=False).to(dtype, memory_format=torch.channels_last)
    conv(image)
    return 2 * image.numel() * 9 * 256 / seconds(lambda: conv(image))


def memory(field: str) -> int:
    """KiB of this process, on Linux: "VmRSS", resident now, or "VmHWM", at most so far.

    `getrusage` will not do: a new process starts with its parent's maximum there.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field)))


def seconds(call: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def row(name: str, turns: list[Turn]) -> str:
    """A network's row of the table."""
    parameters, flops, peak, forward, bare, _ = (statistics.median(values) for values in zip(*turns))
    ratio = statistics.median(turn.forward / turn.bare for turn in turns)
    part = statistics.median(turn.flops / turn.forward / turn.rate for turn in turns)
    cells = (name, f"{parameters:,.0f}", f"{flops / 1e9:.1f}", f"{1e3 * forward:.0f}", f"{1e3 * bare:.0f}")
    return "| " + " | ".join((*cells, f"{ratio:.2f}", f"{part:.0%}", f"{peak / 1024:.0f}")) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=512, help="height and width, a multiple of 128 (default: 512)")
    parser.add_argument("--repeats", type=int, default=5, help="turns of every network (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    parser.add_argument("--only", default="", help="only networks with this in their name")
    arguments = parser.parse_args()
    if arguments.size < 256 or arguments.size % 128:
        parser.error(f"--size must be a multiple of 128 from 256 (nnU-Net's seven halvings), got {arguments.size}")
    turns: dict[str, list[Turn]] = {name: [] for name in NETWORKS if arguments.only in name}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as process:
        for _ in range(arguments.repeats):
            for name in turns:
                turns[name].append(process.apply(turn, (name, arguments.size, arguments.threads)))
    print(
        f"One slice of {arguments.size} x {arguments.size}, {arguments.threads} threads, PyTorch {torch.__version__}, "
        f"median of {arguments.repeats} turns.\n"
    )
    print("| network | parameters | GFLOPs | forward, ms | bare, ms | ratio | of the matrix rate | peak memory, MiB |")
    print("|---|" + "--:|" * 7)
    for name in turns:
        print(row(name, turns[name]))


if __name__ == "__main__":
    main()
