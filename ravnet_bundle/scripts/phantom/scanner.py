"""The scanner: from patient, field of view and phase to a CT with its label; in memory, as NIfTI or as a data set."""

import itertools
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from .anatomy import LIVER_EXTENT, anatomy
from .render import Painter, World, noise, noise_filter
from .tissues import PHASES

REGIONS = ("abdomen", "chest", "pelvis")
AXCODES = {"".join(c) for p in itertools.permutations(("LR", "PA", "IS")) for c in itertools.product(*p)}


class Phantom(NamedTuple):
    """A synthetic CT.

    Attributes:
        image: int16 HU, (X, Y, Z) in storage order.
        label: uint8, same shape: 0 background, 1 liver with its vessels, 2 tumour in the liver.
        affine: float64 (4, 4), voxel index -> RAS+ mm.
    """

    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray


def make_phantom(
    seed: int = 0,
    shape: Sequence[int] = (512, 512, 100),
    spacing: Sequence[float] = (0.75, 0.75, 3.0),
    region: str = "abdomen",
    phase: str = "portal",
    axcodes: str | Sequence[str] = "LPS",
) -> Phantom:
    """Makes a synthetic CT. The same arguments give the same voxels; another storage order shows the same patient.

    Args:
        seed: the patient: anatomy, tumours, fat, position, HU and noise.
        shape: voxels from left to right, front to back, foot to head, for any axcodes.
        spacing: mm in the same directions.
        region: "abdomen" is centred on the liver, "chest" ends above it, "pelvis" below it.
        phase: "native", "arterial" or "portal".
        axcodes: storage order as nibabel's axis codes, e.g. "LPS".

    Raises:
        ValueError: unknown region, phase or axcodes; shape or spacing is not three positive numbers.
    """
    if region not in REGIONS:
        raise ValueError(f"region is {region!r}; it must be one of {', '.join(REGIONS)}")
    if phase not in PHASES:
        raise ValueError(f"phase is {phase!r}; it must be one of {', '.join(PHASES)}")
    code = "".join(axcodes).upper()
    if code not in AXCODES:
        raise ValueError(f"axcodes is {axcodes!r}; it must name each axis of the patient once, such as 'LPS' or 'RAS'")
    if len(shape) != 3 or len(spacing) != 3 or min(shape) < 1 or not min(spacing) > 0:
        raise ValueError(f"shape {tuple(shape)} and spacing {tuple(spacing)} must be three positive numbers each")

    world, organs = World(seed, phase), anatomy(seed)
    size = np.asarray(shape) * np.asarray(spacing, np.float64)
    foot, head = world.reach(LIVER_EXTENT)
    centre = {"abdomen": -5.0, "chest": head + size[2] / 2, "pelvis": foot - size[2] / 2}[region]
    x, y, z = ((np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing))
    z = z + centre

    image, label = np.empty(shape, np.int16), np.empty(shape, np.uint8)
    edge = max(1.2, spacing[0], spacing[1])
    # a thick slice is the mean of three planes (partial volume along z); its label is that of the middle one
    offsets = (0.0,) if spacing[2] <= 4 else (-spacing[2] / 3, spacing[2] / 3, 0.0)
    sigma = world.noise * (5 / spacing[2]) ** 0.55
    amplitude = noise_filter(image.shape[:2], spacing[:2])
    paint = Painter(organs, world, edge)

    def scan(k: int) -> None:
        planes = [paint(world.points(x, y, z[k] + offset)) for offset in offsets]
        hu = sum((plane for plane, _ in planes), np.float32(0)) / np.float32(len(planes))
        quiet: np.ndarray = np.clip((hu + 1100) / 900, 0.3, 1)  # air and lung are less noisy
        hu += np.float32(sigma) * quiet * noise(seed, k, amplitude, hu.shape)
        image[:, :, k] = np.clip(np.rint(hu), -1024, 3071)
        label[:, :, k] = planes[-1][1]

    # numpy releases the interpreter only for large arrays: small slices are faster one after the other
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1) if image[:, :, 0].size > 40_000 else 1) as pool:
        list(pool.map(scan, range(len(z))))

    affine = np.diag([*map(float, spacing), 1.0])
    affine[:3, 3] = x[0], y[0], z[0]
    order = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(code))
    affine = affine @ inv_ornt_aff(order, shape)
    image, label = (np.ascontiguousarray(apply_orientation(a, order)) for a in (image, label))
    return Phantom(image, label, affine)


def save_phantom(phantom: Phantom, image_path: str | Path, label_path: str | Path | None = None) -> None:
    """Writes the image (int16) and, with a path, the label (uint8) as NIfTI with qform and sform."""
    for array, path in ((phantom.image, image_path), (phantom.label, label_path)):
        if path is not None:
            nifti = nib.Nifti1Image(array, phantom.affine)
            nifti.set_qform(phantom.affine, "scanner")
            nifti.set_sform(phantom.affine, "scanner")
            nifti.header.set_xyzt_units("mm")
            nib.save(nifti, path)


def make_decathlon(
    folder: str | Path, training: int = 4, validation: int = 1, test: int = 1, seed: int = 0, **kwargs: Any
) -> None:
    """Writes a data set in the layout of the Medical Segmentation Decathlon: imagesTr, labelsTr and dataset.json.

    Args:
        folder: made if missing.
        training, validation, test: number of cases, each another patient, all with labels.
        seed: the first patient; the others follow.
        kwargs: make_phantom's other arguments.
    """
    folder = Path(folder)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    patients = itertools.count(seed)
    lists: dict[str, list[dict[str, str]]] = {}
    for part, count in (("training", training), ("validation", validation), ("test", test)):
        lists[part] = []
        for patient in itertools.islice(patients, count):
            name = f"phantom_{patient:03d}"
            entry = {"image": f"imagesTr/{name}.nii.gz", "label": f"labelsTr/{name}.nii.gz", "patient": name}
            save_phantom(make_phantom(seed=patient, **kwargs), folder / entry["image"], folder / entry["label"])
            lists[part].append(entry)
    description = {
        "name": "Phantoms",
        "description": "Synthetic CTs of the abdomen with exact truth; a score on them is not clinical accuracy.",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "liver tumour"},
        "tensorImageSize": "3D",
        "numTraining": training,
        "numTest": test,
        **lists,
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=1) + "\n")
