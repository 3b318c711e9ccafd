"""Scans and labels: found in the layouts that people have, split by patient."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

IMAGES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")

# 3D-IRCADb-01, the source of LiTS volumes 28 to 47: pixel size and slice spacing in mm, and slices, of its patients 1 to 20
# (https://www.ircad.fr/research/data-sets/liver-segmentation-3d-ircadb-01/). LiTS stores them with identity affines.
IRCADB = (
    (0.57, 1.6, 129), (0.78, 1.6, 172), (0.62, 1.25, 200), (0.74, 2.0, 91), (0.78, 1.6, 139),
    (0.78, 1.6, 135), (0.78, 1.6, 151), (0.56, 1.6, 124), (0.87, 2.0, 111), (0.73, 1.6, 122),
    (0.72, 1.6, 132), (0.68, 1.0, 260), (0.67, 1.6, 122), (0.72, 1.6, 113), (0.78, 1.6, 125),
    (0.70, 1.6, 155), (0.74, 1.6, 119), (0.74, 2.5, 74), (0.70, 4.0, 124), (0.81, 2.0, 225),
)  # fmt: skip


def training_scans(
    dataset_dir: str, seed: int = 0, test_share: float = 0.2, validation_share: float = 0.2
) -> dict[str, list[dict[str, str]]]:
    """The labelled scans of a folder, as `{"training": [...], "validation": [...], "test": [...]}`.

    Layouts: Medical Segmentation Decathlon (`dataset.json`); LiTS (`volume-N.nii[.gz]` with `segmentation-N.nii[.gz]`, at any
    depth); `imagesTr/` and `labelsTr/` with equal file names. A split that the data set brings is kept ("validation" and
    "test" with labels in `dataset.json`); what it lacks is drawn from the training part, seeded and by patient: the paper's
    80/20, and 20 % of the training part for validation.

    Args:
        dataset_dir: the folder.
        seed: of the split.
        test_share, validation_share: parts, 0 to 1, of all and of the rest.

    Returns:
        items `{"image": path, "label": path, "patient": name}`; patient is the file's name where it is not known.

    Raises:
        FileNotFoundError: where the folder, or labelled scans in it, or a file that it lists, cannot be found.
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}. Name your data with --dataset_dir.")
    found = _decathlon(folder) or {"training": _lits(folder) or _images_and_labels(folder)}
    if not found["training"]:
        raise FileNotFoundError(
            f"no labelled scans in {folder}: expected dataset.json (Decathlon), volume-N.nii with segmentation-N.nii (LiTS), "
            "or imagesTr/ with labelsTr/."
        )
    for item in (item for part in found.values() for item in part):
        for key in ("image", "label"):
            if not Path(item[key]).exists():
                raise FileNotFoundError(f"{folder} lists a file that does not exist: {item[key]}")
    for part, share in (("test", test_share), ("validation", validation_share)):
        if not found.get(part):
            found[part], found["training"] = _draw(found["training"], share, seed)
    return found


def scan_name(path: str | Path) -> str:
    """A scan's name: its file's or folder's, without the extension."""
    name = Path(path).name
    return next((name[: -len(end)] for end in sorted(IMAGES, key=len, reverse=True) if name.lower().endswith(end)), name)


def _item(image: Path, label: Path, patient: str | None = None) -> dict[str, str]:
    return {"image": str(image), "label": str(label), "patient": patient or scan_name(image)}


def _decathlon(folder: Path) -> dict[str, list[dict[str, str]]] | None:
    listing = folder / "dataset.json"
    if not listing.exists():
        return None
    content = json.loads(listing.read_text())
    return {
        part: [
            _item(folder / entry["image"], folder / entry["label"], entry.get("patient"))
            for entry in content.get(part, ())
            if isinstance(entry, Mapping) and "label" in entry  # the Decathlon's own test part has no labels
        ]
        for part in ("training", "validation", "test")
    }


def _lits(folder: Path) -> list[dict[str, str]]:
    images, labels = ({}, {})
    for path in folder.rglob("*.nii*"):
        if match := re.fullmatch(r"(volume|segmentation)-(\d+)\.nii(\.gz)?", path.name):
            (images if match[1] == "volume" else labels)[int(match[2])] = path
    return [_item(images[n], labels[n], lits_patient(n)) for n in sorted(images.keys() & labels.keys())]


def lits_patient(number: int) -> str:
    """LiTS scans 7 to 10 are one patient; 11 and 12, and 14 and 15, probably one each."""
    first = {8: 7, 9: 7, 10: 7, 12: 11, 15: 14}.get(number, number)
    return f"lits_{first:03d}"


def _images_and_labels(folder: Path) -> list[dict[str, str]]:
    images = {scan_name(p): p for p in (folder / "imagesTr").glob("*") if p.name.lower().endswith(IMAGES)}
    labels = {scan_name(p): p for p in (folder / "labelsTr").glob("*") if p.name.lower().endswith(IMAGES)}
    pairs = {name: labels.get(name) or labels.get(name.removesuffix("_0000")) for name in sorted(images)}
    return [_item(images[name], label) for name, label in pairs.items() if label]


def _draw(items: Sequence[dict], share: float, seed: int) -> tuple[list[dict], list[dict]]:
    """A seeded part of the patients (at least one, where more than one is there), and the rest."""
    patients = sorted({item["patient"] for item in items})
    if len(patients) < 2:
        return [], list(items)
    drawn = np.random.default_rng(seed).permutation(patients)[: max(1, round(share * len(patients)))]
    return [i for i in items if i["patient"] in drawn], [i for i in items if i["patient"] not in drawn]
