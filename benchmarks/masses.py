"""What weights make of large dark masses beside the liver: Dice on validation scans with synthetic ones in them.

python benchmarks/masses.py DATA [--weights FILE ...]

DATA is a folder of labelled scans with a split (README: training data). Each scan of its validation part goes through
the pipeline as it is and, twice, with two ellipsoids that spare the liver: a mass of 25 to 60 HU and 80 to 160 mm where
the right kidney is, and one of 15 to 50 HU and 70 to 120 mm before the spine. Prints a Markdown table of Dice per case
and of their means, for each file of weights; by default for the shipped ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

BUNDLE = Path(__file__).resolve().parents[1] / "ravnet_bundle"
sys.path.insert(0, str(BUNDLE))

from monai.data import MetaTensor  # noqa: E402  (the bundle's root is on the path first)
from scipy.ndimage import gaussian_filter  # noqa: E402
from verdict import upright  # noqa: E402

from scripts.datasets import scan_name, training_scans  # noqa: E402
from scripts.pipeline import Pipeline  # noqa: E402

SEEDS = (1, 2)
META = {"original_channel_dim": "no_channel"}


def scans(folder: str) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    """Name, HU `(X, Y, Z)`, liver `(X, Y, Z)` and affine of each validation scan, towards R, A, S."""
    for item in training_scans(folder)["validation"]:
        ct, label = upright(item)
        hu = np.ascontiguousarray(ct.get_fdata(dtype=np.float32))  # turned views have no tensor
        yield scan_name(item["image"]), hu, np.asarray(label.dataobj) > 0, ct.affine


def with_masses(hu: np.ndarray, liver: np.ndarray, affine: np.ndarray, seed: int) -> np.ndarray:
    """HU with a mass where the right kidney is, and one before the spine."""
    rng, spacing, lowest, highest = np.random.default_rng(seed), nib.affines.voxel_sizes(affine), hu.min(), hu.max()
    hu, grid = hu.copy(), np.ogrid[tuple(slice(n) for n in hu.shape)]
    z = np.flatnonzero(liver.any((0, 1)))

    def slice_at(share: float) -> tuple[int, np.ndarray, np.ndarray]:
        height = int(z[0] + share * (z[-1] - z[0]))
        return height, *np.nonzero(liver[..., height])

    def add(centre: tuple[float, float, float], radii: tuple[float, float, float], value: float) -> None:
        texture = 12 * gaussian_filter(rng.standard_normal(hu.shape).astype(np.float32), 1)
        far = sum(((at - c) * mm / r) ** 2 for at, c, mm, r in zip(grid, centre, spacing, radii))
        values = value + texture + 6 * rng.standard_normal(hu.shape)
        inside = (far < 1) & ~liver
        hu[inside] = values[inside].clip(lowest, highest)

    at, x, y = slice_at(0.4)
    radius = rng.uniform(45, 65)
    centre = (x.mean() - 30 / spacing[0], y.min() + 25 / spacing[1], at)
    add(centre, (0.9 * radius, radius, 1.2 * radius), rng.uniform(25, 60))
    at, x, y = slice_at(0.55)
    add((x.min() - 10 / spacing[0], y.mean() + 20 / spacing[1], at), (45, 35, 60), rng.uniform(15, 50))
    return hu.round()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="labelled scans with a split")
    parser.add_argument("--weights", nargs="+", default=[str(BUNDLE / "models" / "model.pt")], metavar="FILE")
    arguments = parser.parse_args()
    pipeline = Pipeline()
    print("| weights | scan | as it is | " + " | ".join(f"with masses {seed}" for seed in SEEDS) + " |")
    print("|---|---|" + "--:|" * (1 + len(SEEDS)))
    for weights in arguments.weights:
        pipeline.network.load_state_dict(torch.load(weights, map_location=pipeline.device, weights_only=True))
        table = []
        for name, hu, liver, affine in scans(arguments.data):
            row = []
            for image in (hu, *(with_masses(hu, liver, affine, seed) for seed in SEEDS)):
                found = pipeline(MetaTensor(image, affine=torch.tensor(affine), meta=dict(META))).mask > 0
                row.append(2 * np.count_nonzero(found & liver) / (np.count_nonzero(found) + np.count_nonzero(liver)))
            table.append(row)
            print(f"| {Path(weights).name} | {name} | " + " | ".join(f"{dice:.4f}" for dice in row) + " |", flush=True)
        means = np.mean(table, axis=0)
        print(f"| {Path(weights).name} | mean | " + " | ".join(f"{dice:.4f}" for dice in means) + " |", flush=True)


if __name__ == "__main__":
    main()
