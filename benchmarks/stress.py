"""Dice and verdict of labelled scans that were made hard.

python benchmarks/stress.py DATA [--also CT LABEL] [--weights FILE]
    [--set KEY=VALUE ...] [--only HARDSHIP ...]

DATA is a folder of labelled scans with a split ("Data" in ravnet_bundle/docs/train.md). The scans are those of its
validation part and the pairs of --also. Each scan is segmented once for each of the `HARDSHIPS`. The script prints Dice
and verdict of each case, and the mean and least Dice of each hardship. The exit code is 1 if a case with a Dice below
0.8 is ok.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

BUNDLE = Path(__file__).resolve().parents[1] / "ravnet_bundle"
sys.path.insert(0, str(BUNDLE))

from scipy.ndimage import gaussian_filter, zoom  # noqa: E402  (the bundle's root is on the path first)

from scripts.assessment import Limits, Verdict, judge, measure, observe  # noqa: E402
from scripts.files import scan_name  # noqa: E402
from scripts.inference.pipeline import Pipeline, Segmentation  # noqa: E402
from scripts.reading import CTError, load  # noqa: E402
from scripts.training.datasets import training_scans  # noqa: E402

GOOD = 0.8  # Dice that a case must have to pass as ok
NATIVE = 512  # pixels a side of the grid that noise lives on


class Case(NamedTuple):
    """A scan with its truth, axes towards R, A, S: hu (X, Y, Z) float32, liver (X, Y, Z) bool, affine (4, 4).

    `part`: of the data, or the hardship.
    """

    name: str
    part: str
    hu: np.ndarray
    liver: np.ndarray
    affine: np.ndarray


class Row(NamedTuple):
    """Dice, observations and verdict of a case, and the message of a three-dimensional step that gave up."""

    name: str
    part: str
    dice: float
    observed: dict[str, Any] | None
    verdict: Verdict
    doubts: tuple[str, ...] = ()


class Product:
    """The pipeline and its verdict, with weights of one's own where `weights` names a file."""

    def __init__(self, weights: str | None = None, **overrides: Any):
        weights = weights or str(BUNDLE / "models" / "model.pt")
        self.pipeline = Pipeline(**{"checkpointloader#load_path": weights, **overrides})
        self.weights = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
        self.limits = Limits.load()

    def segment(self, case: Case) -> Segmentation:
        """Raises `CTError` where the reading refuses the case, which is written to a file for it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "ct.nii")
            nib.save(nib.Nifti1Image(np.rint(case.hu).astype(np.int16), case.affine), path)
            return self.pipeline(load(path))

    def row(self, case: Case) -> Row:
        """What becomes of a case; what the reading refuses is rejected."""
        try:
            found = self.segment(case)
        except CTError as error:
            return Row(case.name, case.part, 0.0, None, Verdict("reject", (str(error).partition(": ")[2],)))
        measures = measure(case.hu, found.mask, case.affine)
        network = (found.image, found.answer, found.delivered, found.affine)
        predict, temperature = self.pipeline.predict, self.limits.temperature
        observed = observe(measures, case.affine, *network, predict, temperature)
        doubts = (found.note,) if found.note else ()  # as `ravnet segment` does
        verdict = judge(observed, self.limits, doubts)
        return Row(case.name, case.part, dice(found.mask > 0, case.liver), observed, verdict, doubts)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    both = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    return 2 * int(np.count_nonzero(a & b)) / both if both else 1.0


def upright(item: Mapping[str, str], part: str = "") -> Case:
    """A labelled scan, "image" and "label"."""
    volume = load(item["image"])
    ct = nib.Nifti1Image(np.asarray(volume, np.float32), volume.affine.numpy())
    ct, label = nib.as_closest_canonical(ct), nib.as_closest_canonical(nib.load(item["label"]))
    hu, liver = (np.ascontiguousarray(image.dataobj) for image in (ct, label))
    return Case(Path(scan_name(item["image"])).name, part, hu, liver > 0, ct.affine)


def scans(folder: str, also: Sequence[Sequence[str]] = ()) -> Iterator[Case]:
    """The validation part's scans, and other pairs of image and label; from 6 cm below the liver to 6 cm above it."""
    pairs = [*training_scans(folder)["validation"], *({"image": image, "label": label} for image, label in also)]
    for case in map(upright, pairs):
        liver, margin = np.flatnonzero(case.liver.any((0, 1))), round(60 / nib.affines.voxel_sizes(case.affine)[2])
        if not len(liver):
            raise SystemExit(f"{case.name}: no liver in its label: no hardship of it says anything.")
        near = np.s_[:, :, max(0, liver[0] - margin) : liver[-1] + margin + 1]
        affine = nib.Nifti1Image(case.hu, case.affine).slicer[near].affine
        yield case._replace(hu=case.hu[near], liver=case.liver[near], affine=affine)


def random(case: Case, what: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{case.name} {what}".encode()))


def finer(case: Case) -> Case:
    """The scan on a grid of about 512 x 512: a scan stored at half the resolution gets native pixels again."""
    factor = round(NATIVE / case.hu.shape[0])
    if factor < 2:
        return case
    affine = case.affine @ np.diag([1 / factor, 1 / factor, 1, 1])
    affine[:3, 3] = (case.affine @ [*[0.5 / factor - 0.5] * 2, 0, 1])[:3]
    grid = {"order": 1, "mode": "nearest", "grid_mode": True}
    hu = zoom(case.hu, (factor, factor, 1), **grid)
    return case._replace(hu=hu, liver=case.liver.repeat(factor, 0).repeat(factor, 1), affine=affine)


def resliced(case: Case, mm: float) -> Case:
    """Slices `mm` apart: thicker ones are averages, thinner ones are blends. The label's likewise, at one half."""
    own = nib.affines.voxel_sizes(case.affine)[2]
    number = max(1, int(case.hu.shape[2] * own / mm))
    affine = case.affine.copy()
    affine[:3, 2] *= mm / own
    affine[:3, 3] += case.affine[:3, 2] * (mm / own - 1) / 2
    weights = np.zeros((case.hu.shape[2], number), np.float32)
    for k in range(number):
        middle, half = (k + 0.5) * mm / own, max(mm / own, 1) / 2
        low, high = max(0.0, middle - half), min(case.hu.shape[2], middle + half)
        places = np.arange(int(low), min(case.hu.shape[2], int(np.ceil(high))))
        weights[places, k] = np.minimum(places + 1, high) - np.maximum(places, low)
    weights /= weights.sum(0)
    liver = case.liver.astype(np.float32) @ weights >= 0.5
    return case._replace(hu=case.hu @ weights, liver=liver, affine=affine)


def noisy(case: Case, sd: float, blur: float = 0.0) -> Case:
    """Noise of `sd` HU on native pixels: white, or coloured by a Gaussian of `blur` pixels."""
    case = finer(case)
    noise = random(case, f"noise {sd} {blur}").standard_normal(case.hu.shape, np.float32)
    if blur:
        noise = gaussian_filter(noise, (blur, blur, 0))
    return case._replace(hu=case.hu + noise * np.float32(sd / noise.std()))


def shifted(case: Case, by: float) -> Case:
    """The liver `by` HU brighter, with its vessels and tumours; soft at its edge by a Gaussian of one voxel."""
    return case._replace(hu=case.hu + np.float32(by) * gaussian_filter(case.liver.astype(np.float32), 1))


def sharp(case: Case) -> Case:
    """A sharp kernel: edges overshoot, and the noise is fine and strong."""
    case = noisy(case, 25)
    return case._replace(hu=case.hu + 1.5 * (case.hu - gaussian_filter(case.hu, (1, 1, 0))))


def cut(case: Case) -> Case:
    """A round field of view around the spine that leaves the liver's right side out."""
    x, y = (np.arange(n) * mm for n, mm in zip(case.hu.shape[:2], nib.affines.voxel_sizes(case.affine)))
    body = (case.hu > -40).any(2)
    centre = (x[body.any(1)].mean(), y[body.any(0)].mean())
    seen = np.hypot(x[:, None] - centre[0], y[None] - centre[1]) < 125
    return case._replace(hu=np.where(seen[..., None], case.hu, np.float32(-1024)), liver=case.liver & seen[..., None])


def dome(case: Case) -> Case:
    """A chest CT with a sharp kernel, which ends in the liver: the upper 30 % of it are in view."""
    levels = np.flatnonzero(case.liver.any((0, 1)))
    first = round(levels[0] + 0.7 * len(levels))
    affine = nib.Nifti1Image(case.hu, case.affine).slicer[:, :, first:].affine
    return sharp(case._replace(hu=case.hu[:, :, first:], liver=case.liver[:, :, first:], affine=affine))


def tip(case: Case) -> Case:
    """A pelvis CT whose top is in the liver: the lower 30 % of it are in view."""
    levels = np.flatnonzero(case.liver.any((0, 1)))
    last = round(levels[0] + 0.3 * len(levels))
    return case._replace(hu=case.hu[:, :, :last], liver=case.liver[:, :, :last])


def streaks(case: Case) -> Case:
    """Dark and bright bands from side to side, as between arms that lie beside the body."""
    draw = random(case, "streaks")
    y = np.arange(case.hu.shape[1])[None, :, None] + 0.04 * np.arange(case.hu.shape[0])[:, None, None]
    bands = np.zeros((1, 1, case.hu.shape[2]), np.float32)
    for _ in range(12):
        at, width, strength = draw.uniform(0, case.hu.shape[1]), draw.uniform(2, 8), draw.normal(0, 30)
        bands = bands + np.float32(strength) * np.exp(-(((y - at) / width) ** 2), dtype=np.float32)
    return case._replace(hu=case.hu + bands * draw.uniform(0.5, 1, case.hu.shape[2]).astype(np.float32))


HARDSHIPS: dict[str, Callable[[Case], Case]] = {
    "as it is": lambda case: case,
    "white noise 20 HU": lambda case: noisy(case, 20),
    "white noise 40 HU": lambda case: noisy(case, 40),
    "coloured noise 20 HU": lambda case: noisy(case, 20, 1.0),
    "coloured noise 40 HU": lambda case: noisy(case, 40, 1.0),
    "liver 40 HU brighter": lambda case: shifted(case, 40),
    "liver 60 HU darker": lambda case: shifted(case, -60),
    "liver 90 HU darker": lambda case: shifted(case, -90),
    "liver 120 HU darker": lambda case: shifted(case, -120),
    "60 HU darker, noise 40 HU": lambda case: noisy(shifted(finer(case), -60), 40),
    "sharp kernel": sharp,
    "slices of 1 mm, coarse noise 40 HU": lambda case: noisy(resliced(case, 1.0), 40, 1.5),
    "slices of 2.5 mm": lambda case: resliced(case, 2.5),
    "slices of 5 mm": lambda case: resliced(case, 5.0),
    "slices of 8 mm": lambda case: resliced(case, 8.0),
    "cut field of view": cut,
    "streaks": streaks,
    "dome alone, sharp kernel": dome,
    "lower tip alone": tip,
}


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line a hardship, a column a scan; mean, least, and how many verdicts were ok, review and reject."""
    names = list(dict.fromkeys(row.name for row in rows))
    lines = [f"| hardship | {' | '.join(names)} | mean | least | ok, review, reject |"]
    lines.append(f"|---|{'--:|' * (len(names) + 3)}")
    for part in [*dict.fromkeys(row.part for row in rows), "all"]:
        chosen = [row for row in rows if part in ("all", row.part)]
        by_name = {row.name: f"{row.dice:.3f}{'' if row.verdict.level == 'ok' else '*'}" for row in chosen}
        cells = [by_name.get(name, "") if part != "all" else "" for name in names]
        values = [row.dice for row in chosen]
        levels = [row.verdict.level for row in chosen]
        counts = ", ".join(str(levels.count(level)) for level in ("ok", "review", "reject"))
        lines.append(f"| {part} | {' | '.join(cells)} | {np.mean(values):.4f} | {min(values):.3f} | {counts} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--also", nargs=2, action="append", default=[], metavar=("CT", "LABEL"), help="a further scan")
    parser.add_argument("--weights", help="a checkpoint instead of the shipped one")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="of inference.json, such as slab=3")
    parser.add_argument("--only", nargs="+", default=list(HARDSHIPS), metavar="HARDSHIP", help="some of the hardships")
    arguments = parser.parse_args()
    overrides = {key: json.loads(value) for key, value in (pair.split("=") for pair in arguments.set)}
    product, rows, start = Product(arguments.weights, **overrides), [], time.perf_counter()
    for scan in scans(arguments.data, arguments.also):
        for name in arguments.only:
            rows.append(product.row(HARDSHIPS[name](scan)._replace(part=name)))
            seconds, row = time.perf_counter() - start, rows[-1]
            says = f"{seconds:6.0f} s  {row.name}, {name}: Dice {row.dice:.3f}, {row.verdict.level}"
            print(says, " ".join(row.verdict.reasons), file=sys.stderr, flush=True)
    print(f"{table(rows)}\n\n*: review or reject. Weights of sha256 {product.weights[:12]}.")
    if wrong := [f"{row.name}, {row.part}" for row in rows if row.dice < GOOD and row.verdict.level == "ok"]:
        raise SystemExit(f"under Dice {GOOD} and ok all the same: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
