"""Scans and labels: found in the layouts that people have, split by patient."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

logger = logging.getLogger(__name__)

IMAGES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")

# 3D-IRCADb-01, the source of LiTS volumes 28 to 47: pixel size and slice spacing in mm, and slices, of its 20 patients
# (https://www.ircad.fr/research/data-sets/liver-segmentation-3d-ircadb-01/). LiTS stores them with identity affines.
IRCADB = (
    (0.57, 1.6, 129), (0.78, 1.6, 172), (0.62, 1.25, 200), (0.74, 2.0, 91), (0.78, 1.6, 139),
    (0.78, 1.6, 135), (0.78, 1.6, 151), (0.56, 1.6, 124), (0.87, 2.0, 111), (0.73, 1.6, 122),
    (0.72, 1.6, 132), (0.68, 1.0, 260), (0.67, 1.6, 122), (0.72, 1.6, 113), (0.78, 1.6, 125),
    (0.70, 1.6, 155), (0.74, 1.6, 119), (0.74, 2.5, 74), (0.70, 4.0, 124), (0.81, 2.0, 225),
)  # fmt: skip


class DataError(ValueError):
    """A data set that cannot be used as it is; its text is one line that says what to do."""


def training_scans(
    dataset_dir: str, seed: int = 0, test_share: float = 0.2, validation_share: float = 0.2
) -> dict[str, list[dict[str, str]]]:
    """The labelled scans of a folder, as `{"training": [...], "validation": [...], "test": [...]}`.

    Layouts: Medical Segmentation Decathlon (`dataset.json`); LiTS (`volume-N.nii[.gz]` with `segmentation-N.nii[.gz]`,
    at any depth); `imagesTr/` and `labelsTr/` with equal file names, but for nnU-Net's `_0000` at the end of an
    image's, which its `dataset.json` (version 1) leaves out. A split that the data set brings is kept ("validation" and
    "test" with labels in `dataset.json`); what it lacks is drawn from the training part, seeded and by patient: the
    paper's 80/20, and 20 % of the training part for validation.

    Args:
        dataset_dir: the folder.
        seed: of the split.
        test_share, validation_share: parts, 0 to 1, of all and of the rest.

    Returns:
        items `{"image": path, "label": path, "patient": name}`; patient as listed, else LiTS's, else the file's name.

    Raises:
        DataError: where the folder, or labelled scans in it, or a file that it lists, cannot be found; where none is
            left to choose the weights by; where a patient is listed in two parts.
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
    for part, share in (("test", test_share), ("validation", validation_share)):
        if not found.get(part):
            found[part], found["training"] = _draw(found["training"], share, seed)
    if found["training"] and not found["validation"]:
        raise DataError(
            f"{folder} has too few patients to train with: at least three, to learn from, to choose the weights by and "
            'to test with; or list "training" and "validation" in dataset.json.'
        )
    return found


def scan_name(path: str | Path) -> str:
    """A scan's name: its file's or folder's, without the extension."""
    name = Path(path).name
    return next(
        (name[: -len(end)] for end in sorted(IMAGES, key=len, reverse=True) if name.lower().endswith(end)), name
    )


def is_dicom(file: str | Path) -> bool:
    """Whether a file is DICOM by its first bytes, whatever its name."""
    if not Path(file).is_file():
        return False
    with open(file, "rb") as opened:
        return begins_as_dicom(opened.read(132))


def begins_as_dicom(start: bytes) -> bool:
    """Whether 132 bytes are DICOM's preamble (part 10 of the standard) or, in old files, its first element.

    That is one of group 2 or 8, with two letters as its type or a short length.
    """
    group, number, length = (int.from_bytes(start[at : at + size], "little") for at, size in ((0, 2), (2, 2), (4, 4)))
    typed = re.fullmatch(b"[A-Z]{2}", start[4:6]) is not None
    return start[128:] == b"DICM" or (group in (2, 8) and number < 0x20 and (typed or 0 < length <= 1024))


def scan_root(path: str) -> str:
    """The folder below which output folders mirror input folders: a file's or DICOM folder's own, or the folder.

    Where there is nothing at `path`, the scans come from elsewhere, and "" mirrors none of their folders.
    """
    root = Path(path).absolute()
    if not root.exists():
        return ""
    single = not root.is_dir() or any(is_dicom(file) for file in root.iterdir())
    return str(root.parent if single else root)


def _item(image: Path, label: Path, patient: str | None = None) -> dict[str, str]:
    return {
        "image": str(image),
        "label": str(label),
        "patient": str(_patient(scan_name(image)) if patient is None else patient),
    }


def _patient(name: str) -> str:
    """The patient of a scan, by its name: LiTS's, where LiTS or the Decathlon named it, or the name itself."""
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
    """The labelled scans of a part; the Decathlon's own test part has no labels, and is a list of names."""
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
        if not image.exists():  # nnU-Net's version 1 leaves out the channel, which is in the file's name
            ending = image.name[len(scan_name(image)) :]
            channel = image.with_name(f"{scan_name(image)}_0000{ending}")
            image = channel if channel.exists() else image
        for file in (image, label):
            if not file.exists():
                raise DataError(f"{folder} lists a file that does not exist: {file}")
        items.append(_item(image, label, entry.get("patient")))
    return items


def is_label(path: Path) -> bool:
    """Whether a file lies where data sets keep masks: TotalSegmentator, nnU-Net, the Decathlon, LiTS and KiTS."""
    folder, name = path.parent, scan_name(path)
    if folder.name.startswith("labels"):
        return folder.with_name(folder.name.replace("labels", "images")).is_dir()
    if re.fullmatch(r"segmentation-\d+", name):
        return True
    beside = folder / "imaging" if name == "segmentation" else folder.parent / "ct"
    known = name == "segmentation" or folder.name == "segmentations"
    return known and any(Path(f"{beside}{ending}").exists() for ending in IMAGES)


def _lits(folder: Path) -> list[dict[str, str]]:
    images, labels = ({}, {})
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
    """A seeded part of the patients (at least one, where more than one is there), and the rest."""
    patients = sorted({item["patient"] for item in items})
    if len(patients) < 2:
        return [], list(items)
    drawn = np.random.default_rng(seed).permutation(patients)[: max(1, round(share * len(patients)))]
    return [i for i in items if i["patient"] in drawn], [i for i in items if i["patient"] not in drawn]


class RepairHeaderd(MapTransform):
    """Repairs, or refuses, the headers of training data that are known to be wrong, with a message each time.

    - The label's affine differs from the image's (LiTS; nnUNet#2751): it takes the image's, if it is an identity or
      names the same axes; a label stored along other axes is refused.
    - LiTS volumes 28 to 47 with an identity affine (LITS-CHALLENGE#14): the spacing comes from 3D-IRCADb's table, where
      the number of slices agrees, with the axes (L, P, S) of the other LiTS volumes. Another identity affine on a
      512 x 512 grid is refused: half a metre of view in pixels of 1 mm is no CT's.
    - The liver lies on the left of the body (LPS data labelled RAS; model-zoo#766): both in-plane axes are turned.

    Args:
        keys: image and label, `(1, X, Y, Z)` each.

    Raises:
        DataError: grids that differ, or a spacing that is wrong and unknown.
    """

    def __init__(self, keys: KeysCollection):
        super().__init__(keys)
        self.image_key, self.label_key = self.keys

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        result = dict(data)
        image, label = result[self.image_key], result[self.label_key]
        name = scan_name(image.meta.get("filename_or_obj", "a scan without a file name"))
        if image.shape != label.shape:
            raise DataError(f"{name}: image {tuple(image.shape)} and label {tuple(label.shape)} are not on one grid.")
        if not torch.allclose(image.affine, label.affine, atol=1e-2):
            axes = [nib.aff2axcodes(volume.affine.numpy()) for volume in (image, label)]
            if axes[0] != axes[1] and not is_identity(label.affine) and not is_identity(image.affine):
                raise DataError(f"{name}: label along {axes[1]}, image along {axes[0]}: resample the label.")
            logger.warning("%s: the label's affine differs from the image's and takes its place", name)
        affine = self.known_spacing(name, image)
        if left_of_body(image, label > 0, affine) > 10:
            logger.warning("%s: the liver lies on the left: in-plane axes are turned (LPS data labelled RAS)", name)
            affine = torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=affine.dtype)) @ affine
        image.affine, label.affine = affine, affine.clone()
        return result

    @staticmethod
    def known_spacing(name: str, image: MetaTensor) -> torch.Tensor:
        affine, shape = image.affine, tuple(image.shape[1:])
        if not is_identity(affine) or shape[:2] != (512, 512):
            return affine
        number = re.search(r"(\d+)$", name.removesuffix("_0000"))
        patient = int(number[1]) - 27 if number else 0
        if not 1 <= patient <= len(IRCADB) or IRCADB[patient - 1][2] != shape[2]:
            raise DataError(f"{name}: an identity affine on a 512 x 512 grid: its spacing is not known. Leave it out.")
        pixel, spacing, _ = IRCADB[patient - 1]
        logger.warning("%s: identity affine; %g x %g x %g mm from 3D-IRCADb's table", name, pixel, pixel, spacing)
        return torch.diag(torch.tensor([-pixel, -pixel, spacing, 1.0], dtype=affine.dtype))


def is_identity(affine: torch.Tensor) -> bool:
    """Whether an affine states nothing: pixels of 1 mm along the storage axes."""
    return torch.allclose(affine[:3, :3].abs(), torch.eye(3, dtype=affine.dtype))


def left_of_body(image: torch.Tensor, liver: torch.Tensor, affine: torch.Tensor) -> float:
    """How far, in mm, the liver lies left of the body (image > -30 HU), by their centres in its slices; nan without."""
    slices = liver.any(dim=(0, 1, 2))
    body = (image.as_tensor() if isinstance(image, MetaTensor) else image)[..., slices] > -30
    return -float(affine[0, :3].double() @ (_centre(liver[..., slices]) - _centre(body)))


def _centre(mask: torch.Tensor) -> torch.Tensor:
    """Mean index (3) of a mask's voxels, `(1, X, Y, Z)`."""
    counts = [mask[0].sum(dim=[axis for axis in range(3) if axis != kept]).double() for kept in range(3)]
    return torch.stack([(count * torch.arange(len(count))).sum() / count.sum() for count in counts])
