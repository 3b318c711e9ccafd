"""A cohort of small phantoms on local workers that are killed at random: throughput, lost and repeated studies.

python benchmarks/cohort.py [--studies 1000] [--workers 1 2] [--kill-every 50] [--seconds 15.4 --slices 78]

The studies are a few phantoms with different noise. They have large pixels (--fast): so most of the time goes into the
queue, reading, writing and reports. Each line of the first table is one `ravnet segment --workers N`. Its worker
processes get SIGKILL at random moments, on average one after --kill-every studies.

- Lost: studies without a complete result, outcome or row of measures.csv.
- Doubled: studies with more than one result, outcome or row.
- Different: studies with a mask, picture or measures that are not the same bytes as in the first line.

The exit code is 1 if any of these is not 0.

The second table is computed from a time that benchmarks/volume.py measured. Its assumptions stand below it.
"""

import argparse
import csv
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from ravnet_bundle.scripts.phantom import make_phantom  # noqa: E402
from ravnet_bundle.scripts.writing import complete  # noqa: E402

SMALL = {"shape": (48, 48, 12), "spacing": (7.5, 7.5, 18.0)}
COMPARED = ("liver.nii.gz", "measures.json", "preview.png")
CTS = 100_000
IDC = 0.008  # dollars a series: $1,011 for more than 126,000 CTs with TotalSegmentator (PMC11092813)


def make_cohort(folder: Path, studies: int, patients: int) -> None:
    """Writes `studies` NIfTI files: `patients` phantoms in turn, the k-th file with the k-th noise (5 HU) on top."""
    phantoms = [make_phantom(seed=seed, **SMALL) for seed in range(min(patients, studies))]
    folder.mkdir()
    for k in range(studies):
        image, _, affine = phantoms[k % len(phantoms)]
        noisy = image + np.random.default_rng(k).normal(0, 5, image.shape)
        noisy = np.clip(np.rint(noisy), -1024, 3071).astype(np.int16)
        nib.save(nib.Nifti1Image(noisy, affine), folder / f"ct_{k:05d}.nii.gz")


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children() if any("spawn_main" in word for word in child.cmdline())]


def run(source: Path, output: Path, workers: int, kill_every: int) -> tuple[float, int, list[dict], Counter]:
    """One command: its seconds, the kills, the outcomes it told, and how often each study was seen to be written."""
    command = [sys.executable, "-m", "ravnet_bundle.scripts.cli", "segment", str(source), "-o", str(output)]
    command += ["--workers", str(workers), "--threads", "1", "--fast", "--json"]
    generator, kills, seen, begun = random.Random(workers), 0, {}, time.perf_counter()
    due = generator.expovariate(1 / kill_every)
    with tempfile.TemporaryFile("w+") as told:
        process = psutil.Popen(command, cwd=ROOT, stdout=told)
        while process.poll() is None:
            for manifest in output.glob("*/manifest.json"):
                facts = manifest.stat()
                seen.setdefault(manifest.parent.name, set()).add((facts.st_ino, facts.st_mtime_ns))
            if len(seen) >= due and (victims := workers_of(process)):
                time.sleep(generator.uniform(0, 1))
                with suppress(psutil.NoSuchProcess):
                    generator.choice(victims).send_signal(signal.SIGKILL)
                    kills += 1
                due = len(seen) + generator.expovariate(1 / kill_every)
            time.sleep(0.1)
        seconds = time.perf_counter() - begun
        told.seek(0)
        text = told.read()
    if process.returncode == 2 or not text:
        raise SystemExit(f"the command ended with {process.returncode}: {' '.join(command)}")
    return seconds, kills, json.loads(text), Counter({name: len(times) for name, times in seen.items()})


def audit(names: list[str], output: Path, outcomes: list[dict], written: Counter, first: Path) -> tuple[int, int, int]:
    """Studies lost, doubled and different."""
    told = Counter(outcome["name"] for outcome in outcomes if outcome["status"] != "failed")
    with open(output / "measures.csv", newline="") as file:
        rows = Counter(row["name"] for row in csv.DictReader(file))
    lost = doubled = different = 0
    for name in names:
        manifest = output / name / "manifest.json"
        whole = manifest.exists() and complete(manifest, **json.loads(manifest.read_text())["about"])
        lost += not (whole and told[name] and rows[name])
        doubled += max(written[name], told[name], rows[name]) > 1
        pairs = [(output / name / file, first / name / file) for file in COMPARED]
        different += whole and any(not b.exists() or a.read_bytes() != b.read_bytes() for a, b in pairs)
    return lost, doubled, different


def cost(arguments: argparse.Namespace) -> None:
    """Prints what a cohort costs, and on which assumptions."""
    seconds = arguments.seconds * arguments.typical / arguments.slices
    hours = CTS * seconds / 3600
    price = hours * arguments.core_hour
    print(f"\n| {CTS:,} CTs | a CT | in all |\n|---|--:|--:|")
    print(f"| RA V-Net's liver: {hours:,.0f} core-hours | ${price / CTS:.5f} | ${price:,.0f} |")
    print(f"| IDC's run of TotalSegmentator (PMC11092813) | ${IDC:.3f} | ${IDC * CTS:,.0f} |")
    print(
        f"\nAssumed: {arguments.seconds} s a CT of {arguments.slices} slices on one core, the process's start included "
        f"(benchmarks/volume.py); time grows with the slices, and a CT of the cohort has {arguments.typical} of "
        f"512 x 512: {seconds:.1f} s; ${arguments.core_hour} a core-hour, two vCPUs with 8 GB on demand (list price of "
        "Google's e2-standard-2 in us-central1 as known to the author: check it). Storage, transfer, idle cores and "
        "lost work are not in it. The two lines do not do the same work: one organ here, all of the body's there."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000)
    parser.add_argument("--patients", type=int, default=20, help="phantoms that the studies are made of (20)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="a line of the table for each (1 2)")
    parser.add_argument("--kill-every", type=int, default=50, help="studies between kills, on average (50)")
    parser.add_argument(
        "--seconds", type=float, default=15.4, help="of one core, volume.py's CPU time of one CT (15.4)"
    )
    parser.add_argument("--slices", type=int, default=78, help="of that CT (78)")
    parser.add_argument("--typical", type=int, default=200, help="slices of a CT in the cohort (200)")
    parser.add_argument("--core-hour", type=float, default=0.067, help="dollars (0.067)")
    arguments = parser.parse_args()
    failed = False
    print("| workers | studies | kills | s | studies/min | lost | doubled | different |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory(prefix="cohort-") as folder:
        source, first = Path(folder, "in"), Path(folder, f"out_{arguments.workers[0]}")
        make_cohort(source, arguments.studies, arguments.patients)
        names = [path.name.removesuffix(".nii.gz") for path in sorted(source.iterdir())]
        for workers in arguments.workers:
            output = Path(folder, f"out_{workers}")
            seconds, kills, outcomes, written = run(source, output, workers, arguments.kill_every)
            bad = audit(names, output, outcomes, written, first)
            failed |= any(bad)
            line = [workers, len(names), kills, f"{seconds:.0f}", f"{60 * len(names) / seconds:.0f}", *bad]
            print(f"| {' | '.join(map(str, line))} |", flush=True)
    cost(arguments)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
