"""A path -> one CT volume that has been checked, or one clear line that says what is wrong with it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Hashable, Mapping
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np
import pydicom
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImaged

from .datasets import IMAGES, is_dicom

SOFT_TISSUE = (-40.0, 160.0)  # HU; a CT of the trunk shows some, whatever its window or its contrast phase


class CTError(ValueError):
    """An input that is not a CT volume this bundle can segment; its text is one line that says what to do."""


def find_scans(path: str, image_key: str = "image") -> list[dict[str, str]]:
    """The scans under a path: one image file, one DICOM folder, or a folder of either at any depth.

    Returns:
        one item `{image_key: absolute path}` per scan, by name; a DICOM series is its folder.

    Raises:
        CTError: where there is nothing.
    """
    root = Path(path).absolute()
    if not root.exists():
        raise CTError(f"{path}: no such file or folder.")
    if root.is_file():
        return [{image_key: str(root)}]
    scans = []
    for folder, _, names in sorted(os.walk(root)):
        files = [Path(folder, name) for name in sorted(names)]
        scans += [file for file in files if file.name.lower().endswith(IMAGES)]
        if any(is_dicom(file) for file in files):
            scans.append(Path(folder))
    if not scans:
        raise CTError(f"{path}: no scan in this folder; expected {', '.join(IMAGES)} files or DICOM folders.")
    return [{image_key: str(scan)} for scan in scans]


class LoadCTd(LoadImaged):
    """MONAI's `LoadImaged`, which tells in one line why an input is not a CT volume.

    HU are as the reader gives them; NIfTI is read by nibabel, DICOM folders, NRRD and MetaImage by ITK. Singleton axes
    beyond the third are dropped.

    Raises:
        CTError: an input that is missing, truncated, in an unknown format, not three-dimensional, not finite, without
            plausible HU, or a DICOM folder that is not one evenly spaced CT series.
    """

    def __call__(self, data: Mapping[Hashable, str], reader=None) -> dict[Hashable, MetaTensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            path = Path(result[key])
            if not path.exists():
                raise CTError(f"{path}: no such file or folder.")
            if path.is_dir():
                check_series(path)
            try:
                volume = self._loader(path, reader)
            except Exception as error:
                raise CTError(f"{path}: cannot be read: truncated, or not {', '.join(IMAGES)} or DICOM.") from error
            while volume.ndim > 3 and volume.shape[-1] == 1:
                volume = volume[..., 0]
            check_volume(volume, path)
            result[key] = volume
        return result


def check_volume(volume: torch.Tensor, path: Path) -> None:
    """Raises `CTError` unless `volume`, (X, Y, Z), can be a CT in HU."""
    if volume.ndim != 3 or min(volume.shape) < 2:
        raise CTError(f"{path}: shape {tuple(volume.shape)} is not a volume; give one three-dimensional CT.")
    if not torch.isfinite(volume).all():
        raise CTError(f"{path}: {int((~torch.isfinite(volume)).sum())} voxels are not finite; mend or export it again.")
    lowest, highest = float(volume.min()), float(volume.max())
    low, high = SOFT_TISSUE
    if lowest >= 0:
        raise CTError(
            f"{path}: values {lowest:g} to {highest:g} are not HU, which fall below 0 in fat and air; "
            "is it an MR, a mask or a normalised image? Give a CT in HU."
        )
    if not ((volume > low) & (volume < high)).any():
        raise CTError(f"{path}: no value between {low:g} and {high:g} HU, soft tissue; give a CT of the trunk in HU.")


def check_series(folder: Path) -> None:
    """Raises `CTError` unless a folder's DICOM files are one CT series with evenly spaced slices.

    The spacing is that of ImagePositionPatient along the slices' normal; SliceThickness is not used.
    """
    tags = ["Modality", "SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient"]
    slices = [
        pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
        for file in sorted(folder.iterdir())
        if is_dicom(file)
    ]
    if not slices:
        raise CTError(f"{folder}: no DICOM file in this folder.")
    modalities = {str(s.get("Modality")) for s in slices}
    series = {str(s.get("SeriesInstanceUID")) for s in slices}
    if modalities != {"CT"} or len(series) != 1:
        raise CTError(
            f"{folder}: {len(series)} series of modality {', '.join(sorted(modalities))}; give a folder one CT series."
        )
    if any("ImagePositionPatient" not in s or "ImageOrientationPatient" not in s for s in slices):
        raise CTError(f"{folder}: slices without ImagePositionPatient or ImageOrientationPatient cannot be placed.")
    rows, columns = np.split(np.asarray(slices[0].ImageOrientationPatient, float), 2)
    positions = sorted(
        float(np.dot(np.cross(rows, columns), np.asarray(s.ImagePositionPatient, float))) for s in slices
    )
    gaps = [upper - lower for lower, upper in pairwise(positions)]
    if gaps and max(gaps) - min(gaps) > max(0.1, 0.05 * float(np.median(gaps))):
        raise CTError(
            f"{folder}: slices {min(gaps):.2f} to {max(gaps):.2f} mm apart: missing, doubled or unevenly spaced; "
            "give an evenly spaced series."
        )


def one_line_errors() -> None:
    """Makes an uncaught `CTError`, however deeply MONAI wrapped it, end the process with its one line (exit code 1)."""
    traceback_hook = sys.__excepthook__

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, CTError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            traceback_hook(kind, error, trace)
        else:
            print(f"error: {cause}", file=sys.stderr)

    sys.excepthook = hook
    logging.getLogger("ignite.engine.engine").setLevel(logging.CRITICAL)  # it logs what the hook is about to say
