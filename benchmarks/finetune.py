"""Fine-tuning on five scans of a scanner that the weights do not know: Dice on unseen patients before and after.

python benchmarks/finetune.py DATA OUT [--also CT LABEL] [--hardship NAME] [--KEY VALUE ...]

DATA is a folder of labelled scans with a split. All scans are made hard in one way of stress.py, as if from another
scanner. Five patients of the training part stand for a user's own scans: four are for training, the fifth is for
validation. The scans of the validation part and the pairs of --also are evaluated with the shipped weights and with
the fine-tuned ones. Training and evaluation are the commands of ravnet_bundle/docs/train.md. Other options, such as
`--max_epochs 5`, go to the training. The same command resumes.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import stress

from scripts.training.datasets import training_scans

BUNDLE = stress.BUNDLE


def hard(item: dict[str, str], hardship: str, folder: Path) -> dict[str, str]:
    """Writes a scan made hard with its label, and returns its entry of dataset.json."""
    case = stress.HARDSHIPS[hardship](stress.upright(item))
    entry = {key: f"{key}s/{case.name}.nii.gz" for key in ("image", "label")}
    for key, values in (("image", np.rint(case.hu).astype(np.int16)), ("label", case.liver.astype(np.uint8))):
        (folder / entry[key]).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(values, case.affine), folder / entry[key])
    return entry


def bundle(run: str, overlay: str, folder: Path, *options: str) -> None:
    files = f"['configs/train.json','configs/{overlay}.json']"
    command = [sys.executable, "-m", "monai.bundle", "run", run, "--config_file", files, "--dataset_dir", str(folder)]
    subprocess.run([*command, *options], cwd=BUNDLE, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="DATA")
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument("--also", nargs=2, action="append", default=[], metavar=("CT", "LABEL"), help="a further scan")
    parser.add_argument("--hardship", metavar="NAME", default="coloured noise 40 HU", choices=list(stress.HARDSHIPS))
    arguments, rest = parser.parse_known_args()
    folder = arguments.out.absolute() / arguments.hardship.replace(",", "").replace(" ", "_")
    data, run = folder / "data", folder / "run"
    if not (data / "dataset.json").exists():
        parts = training_scans(arguments.data)
        *train, last = list({item["patient"]: item for item in parts["training"]}.values())[:5]
        tests = [*parts["validation"], *({"image": image, "label": label} for image, label in arguments.also)]
        listing = {"training": train, "validation": [last], "test": tests}
        made = {part: [hard(item, arguments.hardship, data) for item in items] for part, items in listing.items()}
        (data / "dataset.json").write_text(json.dumps(made, indent=1))
    bundle("training", "finetune", data, "--output_dir", str(run), *rest)
    dice: dict[str, list[float]] = {}
    for name, weights in (("before", BUNDLE / "models"), ("after", run / "models")):
        bundle("evaluating", "evaluate", data, "--ckpt_dir", str(weights), "--output_dir", str(folder / name))
        with open(folder / name / "lits.csv") as file:
            for row in csv.DictReader(file):
                dice.setdefault(row["name"], []).append(float(row["dice"]))
    dice["**mean**"] = np.mean(list(dice.values()), 0).tolist()
    print(f"\n| {arguments.hardship} | Dice, shipped weights | Dice, fine-tuned |\n|---|--:|--:|")
    for case, (before, after) in dice.items():
        print(f"| {case} | {before:.3f} | {after:.3f} |")


if __name__ == "__main__":
    main()
