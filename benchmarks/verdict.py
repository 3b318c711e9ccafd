"""Tests the verdict on scans with a known truth, and derives its limits.

python benchmarks/verdict.py DATA [--also CT LABEL] [--weights FILE] [--write]

DATA is a folder of labelled scans with a split ("Data" in ravnet_bundle/docs/train.md). Each scan is segmented with
slices about 8 mm apart. Scans outside the training part are also segmented with all their slices. Hard cases are:
- scans of the training and validation parts with noise, shifted HU, a mirror or a cut;
- phantoms of chest and pelvis, with extreme noise, MR-like values, a mirror, a turn, half a liver or a cut.
It prints Dice, observations and verdict of each case, and counts the verdicts. The exit code is 1 if a case with a Dice
below 0.8 is ok.

--write derives new limits from the training and validation scans, and the temperature from the validation scans. It
writes both to ravnet_bundle/models/verdict.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

BUNDLE = Path(__file__).resolve().parents[1] / "ravnet_bundle"
sys.path.insert(0, str(BUNDLE))

from scipy.ndimage import gaussian_filter  # noqa: E402  (the bundle's root is on the path first)
from scipy.optimize import minimize_scalar  # noqa: E402
from stress import Case, Product, Row, dice, upright  # noqa: E402

from scripts.assessment import Limits, judge  # noqa: E402
from scripts.assessment.judge import CHECKS, DERIVED  # noqa: E402
from scripts.assessment.observations import FOUND, calibrated  # noqa: E402
from scripts.geometry import expected_dice  # noqa: E402
from scripts.phantom import make_phantom  # noqa: E402
from scripts.training.datasets import training_scans  # noqa: E402

GOOD, FINE = 0.8, 0.9  # Dice that a case must have to pass as ok; from which it should pass
UNSEEN = ("validation", "test", "other")
MARGIN = 0.25  # a limit lies beyond the fine cases' extreme by this part of its distance from their median


def scans(folder: str, also: Sequence[Sequence[str]]) -> Iterator[Case]:
    """The data's scans and further pairs, thinned to slices about 8 mm apart; those that no training saw whole too."""
    parts = training_scans(folder) | {"other": [{"image": image, "label": label} for image, label in also]}
    for part, item in ((part, item) for part, items in parts.items() for item in items):
        case = upright(item, part)
        step = max(1, round(8 / nib.affines.voxel_sizes(case.affine)[2]))
        if step > 1 and part != "training":
            yield case._replace(name=f"{case.name} whole", part=f"{part}, whole")
        thin = np.s_[:, :, ::step]
        ct = nib.Nifti1Image(case.hu, case.affine).slicer[thin]
        yield case._replace(hu=np.asarray(ct.dataobj), liver=case.liver[thin], affine=ct.affine)


def within(case: Case, hu: np.ndarray) -> np.ndarray:
    """Values within the range that the scan was stored with."""
    return np.clip(hu, case.hu.min(), case.hu.max())


def noisy(case: Case, sigma: float) -> Case:
    """Noise of `sigma` HU, correlated over a pixel and a half as a scanner's is."""
    noise = np.random.default_rng(0).standard_normal(case.hu.shape, np.float32)
    noise = gaussian_filter(noise, (0.7, 0.7, 0))
    hu = within(case, case.hu + noise * np.float32(sigma / noise.std()))
    return case._replace(name=f"{case.name} noise {sigma:g}", hu=hu)


def shifted(case: Case, by: float) -> Case:
    return case._replace(name=f"{case.name} {by:+g} HU", hu=within(case, case.hu + np.float32(by)))


def mirrored(case: Case) -> Case:
    """Left for right, with the affine of before."""
    return case._replace(name=f"{case.name} mirrored", hu=case.hu[::-1].copy(), liver=case.liver[::-1].copy())


def upside_down(case: Case) -> Case:
    """Front for back, with the affine of before."""
    hu, liver = case.hu[:, ::-1].copy(), case.liver[:, ::-1].copy()
    return case._replace(name=f"{case.name} front to back", hu=hu, liver=liver)


def cut(case: Case) -> Case:
    """Only the slices of the liver's lower half."""
    z = np.flatnonzero(case.liver.any((0, 1)))
    keep = slice(0, int(np.median(z))) if len(z) else slice(None)
    return case._replace(name=f"{case.name} cut", hu=case.hu[..., keep], liver=case.liver[..., keep])


def half(case: Case) -> Case:
    """The liver's left half, by its middle, replaced by fat: as after a resection."""
    x = np.flatnonzero(case.liver.any((1, 2)))
    gone = case.liver.copy()
    gone[int(np.median(x)) :] = False  # R is at the end
    fat = within(case, np.random.default_rng(0).normal(-100, 12, case.hu.shape).astype(np.float32))
    return case._replace(name=f"{case.name} half", hu=np.where(gone, fat, case.hu), liver=case.liver & ~gone)


def mr_like(case: Case) -> Case:
    """Values as in an MR: air is 0 with noise, fat is bright, bone is dark."""
    hu = np.interp(case.hu, [-1000, -500, -100, 0, 60, 150, 700], [-5, 5, 600, 150, 250, 300, 20]).astype(np.float32)
    return noisy(case._replace(name=f"{case.name} MR-like", hu=hu), 15)._replace(name=f"{case.name} MR-like")


def phantoms() -> Iterator[Case]:
    """Synthetic CTs, easy and hard; seeds that no training saw."""

    def make(seed: int, region: str = "abdomen", phase: str = "portal") -> Case:
        p = make_phantom(seed, (256, 256, 32), (1.6, 1.6, 8.0), region, phase, axcodes="RAS")
        return Case(f"phantom {region} {phase} {seed}", "phantom", p.image.astype(np.float32), p.label > 0, p.affine)

    portal = make(21)
    yield portal
    yield make(22, phase="native")
    yield make(23, phase="arterial")
    for seed in (24, 25):
        yield make(seed, "pelvis")
        yield make(seed, "chest")
    yield noisy(portal, 60)
    yield noisy(portal, 150)
    for spoil in (mr_like, mirrored, upside_down, half, cut):
        yield spoil(portal)
    yield shifted(portal, -100)
    yield shifted(portal, 80)


SPOILED = (
    lambda case: noisy(case, 40),
    lambda case: noisy(case, 80),
    mirrored,
    lambda case: shifted(case, -60),
    lambda case: shifted(case, 30),
    cut,
    upside_down,
    half,
    lambda case: noisy(case, 150),
    lambda case: shifted(case, -30),
)


def cases(folder: str, also: Sequence[Sequence[str]] = ()) -> Iterator[Case]:
    """Every scan, every second of the training and validation parts followed by a spoiled copy, then the phantoms."""
    number = 0
    for case in scans(folder, also):
        yield case
        if case.part in ("training", "validation"):
            if number % 2 == 0:
                yield SPOILED[number // 2 % len(SPOILED)](case)._replace(part=f"{case.part}, spoiled")
            number += 1
    yield from phantoms()


def temperature(product: Product, chosen: Sequence[Case]) -> float:
    """The temperature at which the network expects the true Dice, as near as may be over the scans with a mask."""
    found = [(product.segment(case), case) for case in chosen]
    found = [(one, case) for one, case in found if one.mask.any()]
    if not found:
        raise SystemExit("these weights find a liver in no validation scan: no limits can be derived for them.")

    def error(value: float) -> float:
        guesses = [expected_dice(calibrated(one.answer, value), one.delivered >= FOUND) for one, _ in found]
        truths = [dice(one.mask > 0, case.liver) for one, case in found]
        return float(np.square(np.subtract(guesses, truths)).sum())

    return round(float(minimize_scalar(error, bounds=(0.5, 20), method="bounded").x), 2)


def derive(rows: Sequence[Row]) -> dict[str, tuple[float | None, float | None]]:
    """The derived limits, from the training and validation parts' fine scans, not spoiled."""
    parts = ("training", "validation", "validation, whole")
    fine = [row.observed for row in rows if row.part in parts and row.dice >= FINE]
    if not fine:
        raise SystemExit(f"no mask reaches Dice {FINE}: no limits can be derived for these weights.")
    bounds: dict[str, tuple[float | None, float | None]] = {}
    for check in CHECKS:
        if DERIVED not in (check.low, check.high):
            continue
        values = np.array([observed[check.name] for observed in fine if observed[check.name] is not None])
        typical, worst = np.median(values), values.min() if check.low == DERIVED else values.max()
        limit = float(f"{worst + MARGIN * (worst - typical):.3g}")
        bounds[check.name] = (limit, None) if check.low == DERIVED else (None, limit)
    return bounds


def table(rows: Sequence[Row]) -> str:
    """One markdown row a case, the worst first."""
    names = [check.name for check in CHECKS] + ["uncalibrated_expected_dice"]
    lines = [f"| case | part | Dice | verdict | {' | '.join(names)} | reasons |", f"|{'---|' * (len(names) + 5)}"]
    for row in sorted(rows, key=lambda row: row.dice):
        values = (row.observed or {}).get
        numbers = " | ".join("" if values(name) is None else f"{values(name):.3g}" for name in names)
        reasons = " ".join(row.verdict.reasons)
        lines.append(f"| {row.name} | {row.part} | {row.dice:.3f} | {row.verdict.level} | {numbers} | {reasons} |")
    return "\n".join(lines)


def confusion(rows: Sequence[Row]) -> str:
    """How many cases of which Dice got which verdict, the real scans apart."""
    lines = ["| cases | Dice | ok | review | reject |", f"|{'---|' * 5}"]
    for what, chosen in (
        ("a training's scans", [row for row in rows if row.part == "training"]),
        ("unseen scans", [row for row in rows if row.part.split(",")[0] in UNSEEN and "spoiled" not in row.part]),
        ("spoiled scans and phantoms", [row for row in rows if "spoiled" in row.part or row.part == "phantom"]),
    ):
        for text, low, high in ((f"< {GOOD}", -1, GOOD), (f"{GOOD} to {FINE}", GOOD, FINE), (f">= {FINE}", FINE, 2)):
            levels = [row.verdict.level for row in chosen if low <= row.dice < high]
            counts = " | ".join(str(levels.count(level)) for level in ("ok", "review", "reject"))
            lines.append(f"| {what} | {text} | {counts} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--also", nargs=2, action="append", default=[], metavar=("CT", "LABEL"), help="a further scan")
    parser.add_argument("--weights", help="a checkpoint instead of the shipped one")
    parser.add_argument("--write", action="store_true", help="derive the limits anew and write them beside the weights")
    arguments = parser.parse_args()
    product, rows, start = Product(arguments.weights), [], time.perf_counter()
    if arguments.write:
        chosen = [case for case in scans(arguments.data, ()) if case.part == "validation"]
        product.limits = Limits(product.weights, product.pipeline.grid, temperature(product, chosen), {})
    for case in cases(arguments.data, arguments.also):
        rows.append(product.row(case))
        print(
            f"{time.perf_counter() - start:6.0f} s  {case.name}: Dice {rows[-1].dice:.3f}", file=sys.stderr, flush=True
        )
    if arguments.write:
        limits = replace(product.limits, bounds=derive(rows))
        limits.save()
        rows = [row._replace(verdict=judge(row.observed, limits, row.doubts)) if row.observed else row for row in rows]
        print(limits)
    print(f"{table(rows)}\n\n{confusion(rows)}")
    if wrong := [row.name for row in rows if row.dice < GOOD and row.verdict.level == "ok"]:
        raise SystemExit(f"under Dice {GOOD} and ok all the same: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
