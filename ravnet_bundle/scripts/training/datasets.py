"""Labelled scans in the usual layouts, split by patient."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..files import IMAGES, DataError, Missing, scan_name


def training_scans(
    dataset_dir: str,
    seed: int = 0,
    test_share: float = 0.2,
    validation_share: float = 0.2,
    fold: int | None = None,
    folds: int = 5,
) -> dict[str, list[dict[str, str]]]:
    """The labelled scans of a folder, as `{"training": [...], "validation": [...], "test": [...]}`.

    Layouts:

    - Medical Segmentation Decathlon: `dataset.json`;
    - LiTS: `volume-N.nii[.gz]` with `segmentation-N.nii[.gz]`, at any depth;
    - `imagesTr/` and `labelsTr/` with equal file names; nnU-Net's images may end in `_0000`.

    A split in `dataset.json` ("validation", "test" with labels) is kept. Missing parts are drawn from the training
    part, seeded and by patient: 20 % for test, as in the paper, and 20 % of the rest for validation.

    With `fold`, for a cross-validation, all labelled scans are split anew: each patient is tested in one fold.

    Args:
        dataset_dir: the folder.
        seed: of the split.
        test_share: part of all, 0 to 1.
        validation_share: part of the rest, 0 to 1.
        fold: 0 to `folds` - 1; `None`: no cross-validation.
        folds: their number.

    Returns:
        items `{"image": path, "label": path, "patient": name}`; patient as listed, else LiTS's, else the file's name.

    Raises:
        DataError: the folder, labelled scans or a listed file are missing; no scan is left for validation; a patient is
            in two parts; no such fold.
    """
    folder = Path(dataset_dir)
    if not folder.is_dir():
        raise DataError(f"no such folder: {folder}. Name your data with --dataset_dir.")
    found = _decathlon(folder) or {"training": _lits(folder) or _images_and_labels(folder)}
    if not any(found.values()):
        raise DataError(
            f"no labelled scans in {folder}: expected dataset.json (Decathlon), volume-N.nii with segmentation-N.nii "
            "(LiTS), or imagesTr/ with labelsTr/."
        )
    if fold is not None:
        found = _fold([item for items in found.values() for item in items], fold, folds, seed)
    for part, share in (("test", test_share), ("validation", validation_share)):
        if not found.get(part):
            found[part], found["training"] = _draw(found["training"], share, seed)
    if found["training"] and not found["validation"]:
        raise DataError(
            f"{folder} has too few patients to train with: at least three, for training, validation and test; "
            'or list "training" and "validation" in dataset.json.'
        )
    return found


def datasplit(
    dataset_dir: str, seed: int = 0, fold: int | None = None, folds: int = 5
) -> Mapping[str, Sequence[dict[str, str]]]:
    """`training_scans` for a config: an error is raised only when a part is read."""
    try:
        return training_scans(dataset_dir, seed, fold=fold, folds=folds)
    except DataError as error:
        return dict.fromkeys(("training", "validation", "test"), Missing(error))


def _item(image: Path, label: Path, patient: str | None = None) -> dict[str, str]:
    return {
        "image": str(image),
        "label": str(label),
        "patient": str(_patient(scan_name(image)) if patient is None else patient),
    }


def _patient(name: str) -> str:
    """The patient of a scan: LiTS's for a name of LiTS or the Decathlon, else the name itself."""
    match = re.fullmatch(r"(volume-|liver_)(\d+)(_0000)?", name)
    return lits_patient(int(match[2])) if match else name


def _decathlon(folder: Path) -> dict[str, list[dict[str, str]]] | None:
    listing = folder / "dataset.json"
    if not listing.exists():
        return None
    try:
        content = json.loads(listing.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{listing}: cannot be read as JSON: {' '.join(str(error).split())}.") from error
    if not isinstance(content, Mapping):
        raise DataError(f'{listing}: a {type(content).__name__}, expected {{"training": [...]}}, as in the Decathlon.')
    if "training" not in content:  # nnU-Net's, which lists no files
        return None
    parts = {part: _part(folder, content, part) for part in ("training", "validation", "test")}
    sides: dict[str, str] = {}
    for part, items in parts.items():
        for item in items:
            if sides.setdefault(item["patient"], part) != part:
                where = f'in "{sides[item["patient"]]}" and in "{part}"'
                raise DataError(f"{listing}: patient {item['patient']} is listed {where}: keep each in one part.")
    return parts


def _part(folder: Path, content: Mapping, part: str) -> list[dict[str, str]]:
    """The labelled scans of a part; the Decathlon's test part is a list of names without labels."""
    entries, listing = content.get(part) or (), folder / "dataset.json"
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise DataError(f'{listing}: "{part}" is no list; expected [{{"image": ..., "label": ...}}, ...].')
    items = []
    for number, entry in enumerate(entries):
        if isinstance(entry, str) or (isinstance(entry, Mapping) and "label" not in entry and part != "training"):
            continue
        if not isinstance(entry, Mapping) or not all(isinstance(entry.get(key), str) for key in ("image", "label")):
            raise DataError(f'{listing}: entry {number} of "{part}" has no "image" and "label", each a path.')
        image, label = folder / entry["image"], folder / entry["label"]
        if not image.exists():  # nnU-Net's version 1 lists files without their channel
            ending = image.name[len(scan_name(image)) :]
            channel = image.with_name(f"{scan_name(image)}_0000{ending}")
            image = channel if channel.exists() else image
        for file in (image, label):
            if not file.exists():
                raise DataError(f"{folder} lists a file that does not exist: {file}")
        items.append(_item(image, label, entry.get("patient")))
    return items


def _lits(folder: Path) -> list[dict[str, str]]:
    images: dict[int, Path] = {}
    labels: dict[int, Path] = {}
    for path in sorted(folder.rglob("*.nii*")):
        if match := re.fullmatch(r"(volume|segmentation)-(\d+)\.nii(\.gz)?", path.name):
            (images if match[1] == "volume" else labels)[int(match[2])] = path
    return [_item(images[n], labels[n]) for n in sorted(images.keys() & labels.keys())]


def lits_patient(number: int) -> str:
    """LiTS scans 7 to 10 are one patient; 11 and 12, and 14 and 15, probably one each."""
    first = {8: 7, 9: 7, 10: 7, 12: 11, 15: 14}.get(number, number)
    return f"lits_{first:03d}"


def _images_and_labels(folder: Path) -> list[dict[str, str]]:
    images, labels = (
        # not the hidden "._" files that macOS leaves beside each file
        {scan_name(p): p for p in (folder / name).glob("[!.]*") if p.name.lower().endswith(IMAGES)}
        for name in ("imagesTr", "labelsTr")
    )
    pairs = {name: labels.get(name) or labels.get(name.removesuffix("_0000")) for name in sorted(images)}
    return [_item(images[name], label) for name, label in pairs.items() if label]


def _draw(items: Sequence[dict], share: float, seed: int) -> tuple[list[dict], list[dict]]:
    """A seeded part of the patients (at least one, if there are two or more), and the rest."""
    patients = sorted({item["patient"] for item in items})
    if len(patients) < 2:
        return [], list(items)
    return _apart(items, np.random.default_rng(seed).permutation(patients)[: max(1, round(share * len(patients)))])


def _fold(items: Sequence[dict], fold: int, folds: int, seed: int) -> dict[str, list[dict]]:
    """The test part of a fold, and the rest as "training"."""
    patients = sorted({item["patient"] for item in items})
    if not 2 <= folds <= len(patients) or fold not in range(folds):
        raise DataError(
            f"no fold {fold} of {folds}: folds count from 0, and there can be 2 to {len(patients)} of them."
        )
    test, training = _apart(items, np.random.default_rng(seed).permutation(patients)[fold::folds])
    return {"training": training, "test": test}


def _apart(items: Sequence[dict], patients: np.ndarray) -> tuple[list[dict], list[dict]]:
    """The scans of these patients, and the others."""
    return [i for i in items if i["patient"] in patients], [i for i in items if i["patient"] not in patients]
