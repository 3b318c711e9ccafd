"""Time and memory of a training step, ours and others', with and without loading data, as Markdown tables.

python benchmarks/training.py [--recipes train paper] [--only NAME ...] [--dataset_dir FOLDER] [--output FILE]

Only the network differs. `configs/train.json`, or `configs/paper.json` over it, gives trainer, loss, optimizer, moving
average, metric, precision and batch. There are no handlers that validate, save or log.

The first table repeats one random batch. All rows take turns. Each turn is a new process, so that its peak of memory is
only that of its network. With a GPU there are more rows: tf32 and `torch.compile`.

The second table compares two sources of data, in turns: one augmented batch, repeated, and the config's own data loader
and augmentation. The ratio is the cost of the data, with the start of each epoch of 20 steps. Without --dataset_dir the
data are phantoms.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from monai.engines import Trainer, default_prepare_batch
from torch.utils.flop_counter import FlopCounterMode

BUNDLE = Path(__file__).resolve().parents[1] / "ravnet_bundle"
PHANTOMS = Path(tempfile.gettempdir()) / "ravnet-phantoms" / "training"
GPU = torch.cuda.is_available()
RECIPES = {"train": ["train.json"], "paper": ["train.json", "paper.json"]}


class Row(NamedTuple):
    """What a row of the first table changes in the recipe."""

    overrides: dict[str, Any]
    tf32: bool = False


PLANE = {"spatial_dims": 2, "in_channels": 3, "out_channels": 1}
NNUNET = {"kernel_size": [3] * 6, "strides": [1, 2, 2, 2, 2, 2], "upsample_kernel_size": [2] * 5}
NNUNET |= {"filters": [32, 64, 128, 256, 512, 512]}  # its 2D plan for patches of 192 x 192
ROWS = {
    "RA V-Net": Row({}),
    "MONAI BasicUNet": Row({"network_def": {"_target_": "BasicUNet", **PLANE}}),
    "MONAI DynUNet": Row({"network_def": {"_target_": "DynUNet", **PLANE, **NNUNET}}),
    "RA V-Net, checkpointing": Row({"network_def#checkpointing": True}),
    "RA V-Net, float32": Row({"amp": False}),
    "RA V-Net, float32, not channels_last": Row(
        {"amp": False, "network": "$@network_def.to(@device)", "train#inferer": {"_target_": "SimpleInferer"}}
    ),
}
if GPU:
    ROWS["RA V-Net, tf32"] = Row({"amp": False}, tf32=True)
    ROWS["RA V-Net, compiled"] = Row(
        {"network": "$torch.compile(@network_def.to(@device, memory_format=torch.channels_last))"}
    )


BARE = {
    "train#trainer#train_data_loader": "$[]",
    "train#trainer#prepare_batch": "$monai.engines.default_prepare_batch",
}


class Turn(NamedTuple):
    """What one process measured: seconds and FLOPs of a step, slices in it, peak of memory in MiB."""

    seconds: float
    flops: int
    slices: int
    peak: float


def open_recipe(recipe: str, **overrides: Any) -> ConfigParser:
    """The recipe's config, without the handlers that validate, save and log."""
    sys.path.insert(0, str(BUNDLE))
    logging.disable(logging.WARNING)
    parser = ConfigParser()
    parser.read_config([str(BUNDLE / "configs" / name) for name in RECIPES[recipe]])
    handlers = [item for item in parser["train#handlers"] if item["_target_"].endswith(".Attach")]
    changes = {"bundle_root": str(BUNDLE), "train#handlers": handlers, "train#trainer#epoch_length": None, **overrides}
    for key, value in changes.items():
        parser.set(value, key)
    return parser


def seconds_per_step(trainer: Trainer, batches: Any, epochs: int = 1) -> float:
    """Wall time of a step where the trainer goes through the batches `epochs` times."""
    trainer.data_loader = batches
    trainer.state.epoch = trainer.state.iteration = 0
    trainer.state.epoch_length, trainer.state.max_epochs = len(batches), epochs
    synchronize()
    start = time.perf_counter()
    trainer.run()
    synchronize()
    return (time.perf_counter() - start) / (epochs * len(batches))


def synchronize() -> None:
    if GPU:
        torch.cuda.synchronize()


def network_turn(recipe: str, name: str, size: int, steps: int, threads: int) -> Turn:
    """One turn of a row, in a process of its own: a step to count FLOPs and memory, then some for the time."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    row = ROWS[name]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = row.tf32
    parser = open_recipe(recipe, **BARE, **row.overrides)
    shape = parser["patch_size"] if parser["train#random_transforms"] else [size, size]
    image = torch.rand(parser["batch_size"], len(parser["seen"]), *shape)
    batch = {"image": image, "label": (image > 0.8).float()}
    before = memory("VmRSS")
    trainer = parser.get_parsed_content("train#trainer")
    with FlopCounterMode(display=False) as counter:
        seconds_per_step(trainer, [batch])
    seconds = seconds_per_step(trainer, [batch] * steps)
    peak = torch.cuda.max_memory_allocated() / 2**20 if GPU else (memory("VmHWM") - before) / 2**10
    return Turn(seconds, counter.get_total_flops(), len(image), peak)


def in_new_process(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, made in a process that starts from nothing and may have workers of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(call, *arguments).result()


def memory(field: str) -> int:
    """KiB of this process, on Linux: "VmRSS", resident now, or "VmHWM", at most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field)))


def data_turns(recipe: str, folder: Path, repeats: int, epochs: int, threads: int) -> list[tuple[float, float]]:
    """Seconds of a step on one batch and on the config's data loader and augmentation, in turns."""
    torch.set_num_threads(threads)
    parser = open_recipe(recipe, dataset_dir=str(folder), cache_dir=str(PHANTOMS.parent / "cache"))
    parser.set(20 * parser["batch_size"], "slices_per_epoch")
    trainer = parser.get_parsed_content("train#trainer")
    loader, prepare = trainer.data_loader, trainer.prepare_batch
    image, label = prepare(next(iter(loader)), trainer.state.device)
    fixed = [{"image": image, "label": label}] * len(loader)
    turns = []
    for _ in range(repeats + 1):
        trainer.prepare_batch = default_prepare_batch
        bare = seconds_per_step(trainer, fixed, epochs)
        trainer.prepare_batch = prepare
        turns.append((bare, seconds_per_step(trainer, loader, epochs)))
    return turns[1:]  # the first one warms up


def phantoms() -> Path:
    """A data set of 18 phantoms of 512 x 512 x 8, made once."""
    if not (PHANTOMS / "dataset.json").exists():
        sys.path.insert(0, str(BUNDLE))
        from scripts.phantom import make_decathlon

        make_decathlon(PHANTOMS, training=16, shape=(512, 512, 8), spacing=(0.75, 0.75, 12.0))
    return PHANTOMS


def matrix_rate(threads: int) -> float:
    """TFLOP/s of a large matrix product in bfloat16 on the device that trains."""
    torch.set_num_threads(threads)
    size = 8192 if GPU else 2048
    a = torch.rand(size, size, dtype=torch.bfloat16, device="cuda" if GPU else "cpu")
    times = []
    for _ in range(5):
        synchronize()
        start = time.perf_counter()
        a @ a
        synchronize()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e12


def network_table(turns: dict[tuple[str, str], list[Turn]]) -> str:
    lines = [
        "| recipe | network | batch | step, ms | slices/s | times ours | TFLOP/s | peak memory, MiB |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for (recipe, name), some in turns.items():
        seconds, flops, slices, peak = (statistics.median(values) for values in zip(*some))
        ratio = ""
        if ours := turns.get((recipe, "RA V-Net")):
            ratio = f"{statistics.median(turn.seconds / our.seconds for turn, our in zip(some, ours)):.2f}"
        rate = f"{flops / seconds / 1e12:.2f}" if "compiled" not in name else ""
        times = f"{1e3 * seconds:.0f} | {slices / seconds:.2f} | {ratio}"
        lines.append(f"| {recipe} | {name} | {slices:.0f} | {times} | {rate} | {peak:.0f} |")
    return "\n".join(lines)


def data_table(turns: dict[str, list[tuple[float, float]]]) -> str:
    lines = ["| recipe | one batch, ms | data loader, ms | ratio |", "|---|--:|--:|--:|"]
    for recipe, some in turns.items():
        fixed, loader = (1e3 * statistics.median(values) for values in zip(*some))
        ratio = statistics.median(b / a for a, b in some)
        lines.append(f"| {recipe} | {fixed:.0f} | {loader:.0f} | {ratio:.3f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="rows with one of these in their name")
    parser.add_argument("--size", type=int, default=512, help="of a slice that is not cut into patches (default: 512)")
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed in a turn (default: 3)")
    parser.add_argument("--epochs", type=int, default=1, help="epochs that are timed in a turn with data (default: 1)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of every row (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch (default: 2)")
    parser.add_argument("--dataset_dir", type=Path, help="labelled scans, as for training (default: phantoms)")
    parser.add_argument("--output", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    chosen = [name for name in ROWS if any(part.lower() in name.lower() for part in arguments.only)]
    turns: dict[tuple[str, str], list[Turn]] = {(recipe, name): [] for recipe in arguments.recipes for name in chosen}
    data: dict[str, list[tuple[float, float]]] = {}
    folder = (arguments.dataset_dir or phantoms()).resolve()
    rate = in_new_process(matrix_rate, arguments.threads)
    for _ in range(arguments.repeats):
        for (recipe, name), some in turns.items():
            some.append(in_new_process(network_turn, recipe, name, arguments.size, arguments.steps, arguments.threads))
            print(f"{recipe}, {name}: {some[-1].seconds:.2f} s", file=sys.stderr, flush=True)
    for recipe in arguments.recipes:
        data[recipe] = in_new_process(
            data_turns, recipe, folder, arguments.repeats, arguments.epochs, arguments.threads
        )
    device = torch.cuda.get_device_name() if GPU else f"CPU, {arguments.threads} threads; no GPU here: its rows not run"
    text = (
        f"{device}; PyTorch {torch.__version__}; medians of {arguments.repeats} turns; a bfloat16 matrix product: "
        f"{rate:.2f} TFLOP/s\n\n{network_table(turns)}\n\n{data_table(data)}\n"
    )
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
