"""Time and memory of a whole CT, from the input to the written mask, ours and others'. Each run is a new process.

python benchmarks/volume.py [CT ...] [--slices 78 400] [--only NAME ...] [--nnunet PYTHON]
    [--checkout FOLDER] [--output FOLDER] [--profile]

CT is an image file or a DICOM folder; without one, phantoms of 512 x 512 are made. All rows take turns, on the same
cores. Wall and CPU time and the peak of resident memory come from the kernel. The peers and the paper's network have
random weights. Their networks may run for --seconds. The time for the other windows is extrapolated; the table says how
many windows were run. The script prints a Markdown table. It writes the table and a figure into the --output folder.
--profile prints the stages of `ravnet segment` instead: begin and duration of each, in a cold process.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib
from stages import END, STAGES

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

HERE = Path(__file__).resolve().parent
BUNDLE = HERE.parent / "ravnet_bundle"
PHANTOMS = Path(tempfile.gettempdir()) / "ravnet-phantoms"
ZOO = (
    "wholeBody SegResNet 1.5 mm",
    "wholeBody SegResNet 3 mm",
    "spleen UNet",
    "btcv SwinUNETR",
    "nnU-Net 3d_fullres by DynUNet",
)
NNUNET = "nnU-Net 3d_fullres itself"
OURS = "RA V-Net, ravnet segment"  # what the others are compared with


class Turn(NamedTuple):
    """One run; seconds and GiB. `spared` is what the windows left out would have taken, a part of `wall`."""

    wall: float
    cpu: float
    peak: float
    spared: float
    windows: int  # 0: all is run, nothing is counted
    ran: int


def commands(nnunet: str | None, checkout: Path | None) -> dict[str, list[str]]:
    """Name of a row -> its command, with {ct}, {out}, {seconds} and {report} in place of what differs between runs."""
    segment = [sys.executable, "-m", "scripts.cli", "segment", "{ct}", "-o", "{out}", "--quiet"]
    bundle = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    sampled = ["{ct}", "{out}", "--seconds", "{seconds}", "--report", "{report}"]
    paper = [sys.executable, str(HERE / "peers" / "paper.py"), *sampled]
    rows = {
        OURS: segment,
        "RA V-Net, ravnet segment --fast": [*segment, "--fast"],
        "RA V-Net, monai.bundle run": [*bundle, "--dataset_dir", "{ct}", "--output_dir", "{out}"],
        "RA V-Net, paper's width and pixels": paper,
        "RA V-Net, paper's width and pixels, float32": [*paper, "--float32"],
    }
    for name in ZOO:
        rows[name] = [sys.executable, str(HERE / "peers" / "zoo.py"), *sampled, name]
        rows[f"{name}, bfloat16"] = [*rows[name], "--bfloat16"]
    if checkout:
        rows["RA V-Net, ravnet segment of the other checkout"] = ["env", "-C", f"{checkout}/ravnet_bundle", *segment]
    if nnunet:
        rows[NNUNET] = [os.path.abspath(nnunet), str(HERE / "peers" / "nnunet.py"), *sampled]
    return rows


def run(command: list[str], ct: Path, seconds: float) -> Turn:
    """Runs a command once.

    Raises:
        RuntimeError: the command failed, or did not fit into memory; why.
    """
    with tempfile.TemporaryDirectory() as folder:
        report, errors = Path(folder, "report.json"), Path(folder, "errors.txt")
        values = {"ct": ct, "out": Path(folder, "out"), "seconds": seconds, "report": report}
        with errors.open("w") as stream:
            start = time.perf_counter()
            filled = [part.format(**values) for part in command]
            process = subprocess.Popen(filled, cwd=BUNDLE, stdout=subprocess.DEVNULL, stderr=stream)
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - start
        if status:
            text = errors.read_text()
            killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            if killed or "allocate memory" in text or "MemoryError" in text:
                raise RuntimeError("does not fit into memory")
            cause = re.search(r"^[\w.]+(Error|Exception): .*", text, re.MULTILINE)
            raise RuntimeError(f"failed: {cause.group() if cause else text.strip()[-200:]}")
        left = dict.fromkeys(("windows", "ran", "wall", "cpu"), 0)
        if report.exists():
            left = json.loads(report.read_text())
    cpu, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20
    return Turn(wall + left["wall"], cpu + left["cpu"], peak, left["wall"], left["windows"], left["ran"])


def profile(ct: Path) -> str:
    """A Markdown table of the stages of a cold `ravnet segment`; what runs beside something else overlaps with it."""
    with tempfile.TemporaryDirectory() as folder:
        report, started = Path(folder, "report.json"), time.time()
        command = [sys.executable, HERE / "stages.py", str(started), ct, Path(folder, "out"), report]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        ended, calls = time.time() - started, json.loads(report.read_text())
    stages = {}
    for stage, begin, end, peak in [*calls, (END, max(end for _, _, end, _ in calls), ended, 0)]:
        first, took, most = stages.get(stage, (begin, 0, 0))
        stages[stage] = min(first, begin), took + end - begin, max(most, peak)
    lines = ["| stage | begins at, s | takes, s | peak by then, GiB |", "|---|--:|--:|--:|"]
    for stage in sorted(stages, key=STAGES.index):
        begin, took, peak = stages[stage]
        lines.append(f"| {stage} | {begin:.1f} | {took:.1f} | {f'{peak:.2f}' if peak else ''} |")
    return "\n".join([*lines, f"| all | 0.0 | {ended:.1f} | |"])


def processor() -> str:
    """The CPU, and which of the instructions that matter to a network it has."""
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)", text, re.MULTILINE)
    flags = set(re.search(r"^flags\s*: (.*)", text, re.MULTILINE).group(1).split())
    kinds = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16", "avx512f": "AVX-512", "avx2": "AVX2"}
    return f"{model.group(1)} with {', '.join(kind for flag, kind in kinds.items() if flag in flags)}"


def take_turns(rows: dict[str, list[str]], ct: Path, repeats: int, seconds: float) -> dict[str, list[Turn] | str]:
    """Every row's turns on a CT, or why there are none."""
    turns: dict[str, list[Turn] | str] = {name: [] for name in rows}
    for repeat in range(repeats):
        for name, command in rows.items():
            if isinstance(turns[name], str):
                continue
            try:
                turns[name].append(run(command, ct, seconds))
                result = f"{turns[name][-1].wall:.1f} s"
            except RuntimeError as error:
                turns[name] = result = str(error)
            print(f"{ct.name}, turn {repeat + 1}: {name}: {result}", file=sys.stderr, flush=True)
    return turns


def table(turns: dict[str, list[Turn] | str]) -> str:
    """A Markdown table: medians of time, the largest peak of memory."""
    lines = ["| | wall, s | times ours | CPU, s | peak, GiB | windows run |", "|---|--:|--:|--:|--:|--:|"]
    ours = turns.get(OURS)
    for name, some in turns.items():
        if isinstance(some, str):
            lines.append(f"| {name} | {some} | | | | |")
            continue
        wall, cpu = (statistics.median(getattr(turn, field) for turn in some) for field in ("wall", "cpu"))
        peak = max(turn.peak for turn in some)
        ratio = ""
        if isinstance(ours, list):
            ratio = f"{statistics.median(turn.wall / our.wall for turn, our in zip(some, ours)):.2f}"
        ran = min(turn.ran for turn in some)
        windows = f"{ran} of {some[0].windows}" if ran < some[0].windows else "all"
        lines.append(f"| {name} | {wall:.1f} | {ratio} | {cpu:.1f} | {peak:.2f} | {windows} |")
    return "\n".join(lines)


def figure(turns: dict[str, list[Turn] | str], title: str, path: Path) -> None:
    """Bars of wall time (lighter: extrapolated for windows that were not run) and of peak memory."""
    rows = [(name, some) for name, some in turns.items() if isinstance(some, list)]
    names = [name for name, _ in rows]
    colours = ["#b03a2e" if name.startswith("RA V-Net") else "#7f8c8d" for name in names]
    wall = [statistics.median(turn.wall for turn in some) for _, some in rows]
    spared = [statistics.median(turn.spared for turn in some) for _, some in rows]
    peak = [max(turn.peak for turn in some) for _, some in rows]
    both, (left, right) = plt.subplots(1, 2, figsize=(12, 1.2 + 0.36 * len(rows)), sharey=True, layout="constrained")
    left.barh(names, wall, color=colours, alpha=0.4)
    left.barh(names, [all_ - part for all_, part in zip(wall, spared)], color=colours)
    left.set(xscale="log", xlabel="wall time, s (light: added for windows that were not run)")
    left.set_xlim(left=1)
    left.xaxis.set_major_formatter("{x:g}")
    left.xaxis.set_minor_formatter("")
    right.barh(names, peak, color=colours)
    right.set(xlabel="peak of resident memory, GiB")
    for axes, values, form in ((left, wall, "{:.1f}"), (right, peak, "{:.2f}")):
        axes.bar_label(axes.containers[0], [form.format(value) for value in values], padding=3, fontsize=9)
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    left.invert_yaxis()
    both.suptitle(title)
    both.savefig(path, dpi=150)
    plt.close(both)


def phantom(slices: int) -> Path:
    """A phantom of 512 x 512, made once: 78 slices are 3 mm apart, 400 are 1 mm apart; both show the abdomen."""
    path = PHANTOMS / f"phantom-{slices}.nii.gz"
    if not path.exists():
        sys.path.insert(0, str(BUNDLE))
        from scripts.phantom import make_phantom, save_phantom

        PHANTOMS.mkdir(parents=True, exist_ok=True)
        spacing = (0.75, 0.75, 3.0 if slices <= 200 else 1.0)
        partial = path.with_name(f"partial-{path.name}")
        save_phantom(make_phantom(shape=(512, 512, slices), spacing=spacing), partial)
        partial.rename(path)
    return path


def available() -> float:
    """GiB of memory that new processes may have."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", nargs="*", type=Path, help="image files or DICOM folders (default: phantoms)")
    parser.add_argument("--slices", nargs="+", type=int, default=[78, 400], help="of the phantoms (default: 78 400)")
    parser.add_argument("--only", nargs="+", default=[""], metavar="NAME", help="rows with such a name or part")
    parser.add_argument("--repeats", type=int, default=3, help="turns of every row (default: 3)")
    parser.add_argument("--threads", type=int, default=2, help="cores, and threads of each library (default: 2)")
    parser.add_argument("--seconds", type=float, default=20, help="of a sampled network in one run (default: 20)")
    parser.add_argument("--memory", type=float, help="GiB that a run may have (default: free memory less 1)")
    parser.add_argument("--nnunet", metavar="PYTHON", help="interpreter of an environment with nnunetv2")
    parser.add_argument("--checkout", type=Path, help="another commit's working tree, to compare with")
    parser.add_argument("--profile", action="store_true", help="the stages of ravnet segment instead")
    parser.add_argument("--output", type=Path, help="folder for the table and the figures")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    if not 1 <= arguments.threads <= len(cores):
        parser.error(f"--threads {arguments.threads}: this process may use {len(cores)} cores")
    os.sched_setaffinity(0, cores[: arguments.threads])  # the runs inherit it, and the next two
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), str(arguments.threads))
    limit = arguments.memory or available() - 1
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 2**30), resource.RLIM_INFINITY))
    rows = commands(arguments.nnunet, arguments.checkout)
    parts = [part.lower() for part in arguments.only if part not in rows]
    rows = {name: row for name, row in rows.items() if name in arguments.only or any(p in name.lower() for p in parts)}
    cts = [path.resolve() for path in arguments.ct] or [phantom(slices) for slices in arguments.slices]
    if arguments.profile:
        for ct in cts:
            print(f"{ct.name}; cores: {arguments.threads}; {processor()}\n\n{profile(ct)}\n", flush=True)
        return
    texts = []
    for ct in cts:
        here = {name: command for name, command in rows.items() if name != NNUNET or ct.is_file()}
        turns = take_turns(here, ct, arguments.repeats, arguments.seconds)
        title = f"{ct.name}; cores: {arguments.threads}; memory: {limit:.1f} GiB; medians of {arguments.repeats} turns"
        texts.append(f"{title}\n\n{table(turns)}\n")
        print(texts[-1], flush=True)
        if arguments.output:
            arguments.output.mkdir(parents=True, exist_ok=True)
            figure(turns, title, arguments.output / f"volume-{ct.name.split('.')[0]}.png")
            (arguments.output / "volume.md").write_text("\n".join(texts))


if __name__ == "__main__":
    main()
