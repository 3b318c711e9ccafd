"""Time and memory of a whole volume, from reading the CT to the written mask, each run a fresh process.

python benchmarks/volume.py [CT] [--repeats 3] [--threads 2]

CT is whatever configs/inference.json takes (an image file, a DICOM folder); without one, a phantom of 512 x 512 x 78 is
made. Prints a markdown table: medians of wall time and CPU time, the greatest peak of resident memory.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUNDLE = Path(__file__).resolve().parents[1] / "ravnet_bundle"


def once(source: Path, target: Path, threads: int) -> tuple[float, float, float]:
    """Segments `source` in a new process: wall seconds, CPU seconds, peak resident GB."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    start = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--dataset_dir", str(source), "--output_dir", str(target)],
        cwd=BUNDLE,
        env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        raise SystemExit(f"the bundle could not segment {source}: run it by hand to see why")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ct", nargs="?", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.ct
        if source is None:
            sys.path.insert(0, str(BUNDLE))
            from scripts.phantom import make_phantom, save_phantom

            source = Path(folder, "phantom.nii.gz")
            save_phantom(make_phantom(shape=(512, 512, 78)), source)
        runs = [once(source.resolve(), Path(folder, "out"), arguments.threads) for _ in range(arguments.repeats)]
    wall, cpu, peak = zip(*runs, strict=True)
    print(f"| input | threads | runs | wall s | CPU s | peak GB |\n|{'---|' * 6}")
    print(
        f"| {source.name} | {arguments.threads} | {len(runs)} | {statistics.median(wall):.1f} "
        f"| {statistics.median(cpu):.1f} | {max(peak):.2f} |"
    )


if __name__ == "__main__":
    main()
