"""The shipped network by several runtimes: conversion, time a slice, and what becomes of the masks.

    pip install openvino nncf onnxruntime onnx           # in an environment of its own, beside the bundle's
    python benchmarks/runtimes.py DATA                   # a folder of labelled scans, as for training
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/runtimes.py DATA  # as if without AVX-512

The images are liver slices of the validation part on the network's grid, cropped to the size of most second passes.
int8 is static quantisation on slices of the training part. All rows take turns; the time is the median. Dice is of all
slices as one volume, without the three-dimensional steps. The two variables above bind only PyTorch and OpenVINO; ONNX
Runtime always uses all that the CPU has.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser

BUNDLE = Path(__file__).resolve().parents[1] / "ravnet_bundle"
sys.path.insert(0, str(BUNDLE))

from stress import dice  # noqa: E402  (the bundle's root is on the path first)

from scripts.inference.axial import has_fast_bfloat16  # noqa: E402
from scripts.inference.pipeline import Pipeline  # noqa: E402
from scripts.training.slices import LEVELS  # noqa: E402

BATCH, SIZE = 4, 160
CALIBRATION = 64  # slices

Runtime = Callable[[np.ndarray], np.ndarray]


def network() -> torch.nn.Module:
    return Pipeline(device="cpu").network


def slices(data: str, part: str, number: int, cache: str) -> tuple[np.ndarray, np.ndarray]:
    """Liver slices `(N, 3, SIZE, SIZE)` and their labels `(N, SIZE, SIZE)`, N a multiple of `BATCH`."""
    parser = ConfigParser(ConfigParser.load_config_file(str(BUNDLE / "configs" / "train.json")))
    parser.update({"bundle_root": str(BUNDLE), "dataset_dir": data, "cache_dir": cache})
    scans = parser.get_parsed_content("train#dataset" if part == "training" else "validate#dataset")
    seen = np.array(parser.get_parsed_content("seen"))
    images, labels = [], []
    for image, label in scans.scans:  # uint8, (Z, X, Y)
        where = label.flatten(1).any(1).nonzero()[:, 0].numpy()
        x, y = (int(n.float().mean()) for n in label.nonzero()[:, 1:].T)
        box = tuple(slice(max(0, min(c - SIZE // 2, n - SIZE)), None) for c, n in zip((x, y), image.shape[1:]))
        for z in where[:: max(1, len(where) * len(scans.scans) // number)]:
            planes = image[(z + seen).clip(0, len(image) - 1)][:, box[0], box[1]][:, :SIZE, :SIZE]
            if planes.shape[1:] == (SIZE, SIZE):
                images.append(planes.numpy() / np.float32(LEVELS))
                labels.append(label[z][box[0], box[1]][:SIZE, :SIZE].numpy() > 0)
    whole = len(images) // BATCH * BATCH
    return np.stack(images[:whole]).astype(np.float32), np.stack(labels[:whole])


def pytorch(net: torch.nn.Module, bfloat16: bool = False) -> Runtime:
    def run(x: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return net(batch).float().numpy()

    return run


def onnx_file(net: torch.nn.Module, folder: Path) -> Path:
    path = folder / "model.onnx"
    if not path.exists():
        dynamic = {"image": [0, 2, 3], "pred": [0, 2, 3]}
        names = {"input_names": ["image"], "output_names": ["pred"], "dynamic_axes": dynamic}
        torch.onnx.export(net, (torch.zeros(BATCH, 3, SIZE, SIZE),), str(path), dynamo=False, opset_version=17, **names)
    return path


def onnxruntime(path: Path, threads: int) -> Runtime:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"image": x})[0]


def onnxruntime_int8(path: Path, calibration: np.ndarray, threads: int) -> Runtime:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[np.ndarray] = iter(np.split(calibration, len(calibration) // BATCH))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"image": batch}

    ready, out = path.with_name("ready.onnx"), path.with_name("int8.onnx")
    quant_pre_process(str(path), str(ready), skip_symbolic_shape=True)
    quantize_static(str(ready), str(out), Reader(), quant_format=QuantFormat.QDQ, op_types_to_quantize=["Conv"])
    return onnxruntime(out, threads)


def openvino(path: Path, threads: int, calibration: np.ndarray | None = None) -> Runtime:
    import openvino as ov

    core = ov.Core()
    model = core.read_model(path)
    model.reshape([BATCH, 3, SIZE, SIZE])
    if calibration is not None:
        import nncf

        batches = np.split(calibration, len(calibration) // BATCH)
        model = nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches))
    hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    compiled = core.compile_model(model, "CPU", hints)
    return lambda x: compiled(x)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--slices", type=int, default=96)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    threads, net = arguments.threads, network()
    with tempfile.TemporaryDirectory() as folder:
        x, truth = slices(arguments.data, "validation", arguments.slices, folder)
        calibration, _ = slices(arguments.data, "training", CALIBRATION, folder)
        place = Path(folder)
        rows: dict[str, Callable[[], Runtime]] = {
            "PyTorch float32": lambda: pytorch(net),
            "torch.compile float32": lambda: pytorch(torch.compile(network())),
            "ONNX Runtime float32": lambda: onnxruntime(onnx_file(net, place), threads),
            "ONNX Runtime int8": lambda: onnxruntime_int8(onnx_file(net, place), calibration, threads),
            "OpenVINO float32": lambda: openvino(onnx_file(net, place), threads),
            "OpenVINO int8": lambda: openvino(onnx_file(net, place), threads, calibration),
        }
        if has_fast_bfloat16(torch.device("cpu")):
            rows["PyTorch bfloat16"] = lambda: pytorch(net, True)
        ready, opening = {}, {}
        for name, build in rows.items():
            begun = time.perf_counter()
            ready[name] = build()
            ready[name](x[:BATCH])
            opening[name] = time.perf_counter() - begun
        times: dict[str, list[float]] = {name: [] for name in rows}
        for _ in range(arguments.repeats):
            for name, run in ready.items():
                begun = time.perf_counter()
                run(x[:BATCH])
                times[name].append(time.perf_counter() - begun)
        masks = {
            name: np.concatenate([run(b) for b in np.split(x, len(x) // BATCH)])[:, 0] > 0
            for name, run in ready.items()
        }
    cpu = torch.backends.cpu.get_cpu_capability()
    print(f"\n{len(x)} slices of {SIZE} x {SIZE}, batches of {BATCH}, {threads} threads; {cpu}\n")
    print(
        "| runtime | to the first answer, s | ms a slice | times PyTorch float32 | Dice with it | Dice with the truth |"
    )
    print("|---|--:|--:|--:|--:|--:|")
    first = statistics.median(times["PyTorch float32"])
    for name in rows:
        took = statistics.median(times[name])
        print(
            f"| {name} | {opening[name]:.1f} | {1000 * took / BATCH:.1f} | {took / first:.2f} "
            f"| {dice(masks[name], masks['PyTorch float32']):.4f} | {dice(masks[name], truth):.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
