"""A network that runs for a limited time, then repeats its answers, and says what the rest would have cost."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch


class Sampled:
    """Calls `network(x)`, `(B, ...) -> (B, ...)`, until `seconds` are spent; then it returns copies of the last answer.

    The cost of a network depends on the shape of its input, not on the content. So all windows of one shape cost the
    same, except the first call, which also prepares the convolutions. Each shape is run at least twice if it comes
    twice. The other work (cutting, weighting, adding up, writing) is done for every window.

    Args:
        network: the network to call.
        seconds: wall time of all real calls.
    """

    def __init__(self, network: Callable[[torch.Tensor], torch.Tensor], seconds: float):
        self.network, self.seconds = network, seconds
        self.answers: dict[torch.Size, torch.Tensor] = {}
        self.ran: dict[torch.Size, list[tuple[int, float, float]]] = {}  # windows, wall and CPU seconds of each call
        self.left: dict[torch.Size, list[tuple[int, float, float]]] = {}  # the same of the calls left out

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        kind = x.shape[1:]
        ran, left = self.ran.setdefault(kind, []), self.left.setdefault(kind, [])
        spent = sum(wall for calls in self.ran.values() for _, wall, _ in calls)
        run = len(ran) < 2 or len(x) > len(self.answers[kind]) or spent < self.seconds
        wall, cpu = time.perf_counter(), time.process_time()
        answer = self.network(x) if run else self.answers[kind][: len(x)].clone()
        (ran if run else left).append((len(x), time.perf_counter() - wall, time.process_time() - cpu))
        if run:
            self.answers[kind] = answer.clone()  # the caller may change its answer in place
        return answer

    def report(self, path: Path) -> None:
        """Writes as JSON: `windows`, how many of them `ran`, and the saved seconds, `wall` and `cpu`."""
        total = {"windows": 0, "ran": 0, "wall": 0.0, "cpu": 0.0}
        for kind, calls in self.ran.items():
            typical = calls[1:] or calls
            left = sum(windows for windows, *_ in self.left[kind])
            total["ran"] += sum(windows for windows, *_ in calls)
            total["windows"] += left + sum(windows for windows, *_ in calls)
            for place, name in enumerate(("wall", "cpu"), start=1):
                each = sum(call[place] for call in typical) / sum(windows for windows, *_ in typical)
                total[name] += left * each - sum(call[place] for call in self.left[kind])
        path.write_text(json.dumps(total))


def parser(description: str) -> argparse.ArgumentParser:
    """The common command line of all peers; each adds its own positional arguments at the end."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("ct", type=Path, help="an image file; except for nnU-Net also a DICOM folder")
    result.add_argument("out", type=Path, help="folder for the mask")
    result.add_argument("--seconds", type=float, default=20, help="of the network; other windows are not run")
    result.add_argument("--report", type=Path, help="JSON file: how much was left out")
    return result
