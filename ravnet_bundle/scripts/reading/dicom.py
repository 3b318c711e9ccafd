"""DICOM files -> series of CT slices in order; what is none is set aside by name."""

from __future__ import annotations

import hashlib
import math
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pydicom
from pydicom._uid_dict import UID_dictionary
from pydicom.config import disable_value_validation
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ImplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
    MediaStorageDirectoryStorage,
)

from ..datasets import is_dicom
from .errors import CTError, one_reason

MULTIFRAME = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
NO_SLICES = ("LOCALIZER", "MIP", "PROJECTION IMAGE", "SCREEN SAVE", "DOSE_INFO")  # in ImageType
SLICE = 2**26  # bytes of the largest file that is looked into: a slice of 4096 x 4096 has half of it
TAGS = (
    "SOPClassUID", "Modality", "ImageType", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "InstanceNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "SamplesPerPixel",
    "BitsAllocated", "NumberOfFrames", "RescaleSlope", "RescaleIntercept", "RescaleType", "LossyImageCompression",
)  # fmt: skip


class Slice(NamedTuple):
    """What a CT slice's header says: lengths in mm, directions and positions in DICOM's world, LPS."""

    file: Path
    study: str
    series: str
    number: int | None
    instance: int
    multiframe: bool
    shape: tuple[int, int]  # columns, rows
    spacing: tuple[float, ...]  # between columns, between rows
    directions: tuple[float, ...]  # of a row, of a column
    position: tuple[float, ...]
    bits: int
    syntax: UID
    lossy: bool
    rescaled: bool


class Series(NamedTuple):
    """One series' slices, lowest along their normal first."""

    uid: str
    number: int | None
    study: str
    slices: tuple[Slice, ...]
    notes: tuple[str, ...]


@contextmanager
def quiet_pydicom(file: Path, reason: str) -> Iterator[None]:
    """Turns what pydicom raises into one line about `file`, and silences what it warns of and logs."""
    with one_reason(file, reason), disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def dataset(file: Path, **options) -> pydicom.Dataset:
    """A DICOM file by pydicom; a deflated one is refused, as its size is not bounded."""
    with quiet_pydicom(file, "damaged or truncated DICOM"):
        if read_file_meta_info(file).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            raise CTError(f"{file}: deflated DICOM is not read; inflate it first, e.g. with dcmconv of DCMTK.")
        return pydicom.dcmread(file, **options)


def read_slice(file: Path) -> Slice | str:
    """A CT slice's header, or what the file is instead. Raises `CTError` for a damaged one."""
    if file.stat().st_size > SLICE:
        return "over 64 MB: several images in one, or no image"
    found = dataset(file, stop_before_pixels=True, specific_tags=list(TAGS))
    with quiet_pydicom(file, "damaged DICOM header"):
        if found.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return "DICOMDIR"
        if "SOPClassUID" not in found:
            raise CTError(f"{file}: a damaged or truncated DICOM header; export it again.")
        kind = found.SOPClassUID
        modality = str(found.get("Modality"))
        types = [str(part).upper() for part in found.get("ImageType") or ()]
        if modality != "CT":
            return f"modality {modality}" if re.fullmatch("[A-Z]{2,16}", modality) else "no modality"
        if aside := next((part for part in NO_SLICES if part in types), None):
            return aside.lower()
        if kind not in (CTImageStorage, *MULTIFRAME):
            return UID(kind).name.lower() if kind in UID_dictionary else "of an unknown kind"
        if found.get("SamplesPerPixel", 1) != 1:
            return "colour image"
        return Slice(
            file,
            str(found.get("StudyInstanceUID") or ""),
            str(found.get("SeriesInstanceUID") or ""),
            _whole(found.get("SeriesNumber")),
            _whole(found.get("InstanceNumber")) or 0,
            kind in MULTIFRAME or (_whole(found.get("NumberOfFrames")) or 1) > 1,
            (int(found.get("Columns") or 0), int(found.get("Rows") or 0)),
            _floats(found, "PixelSpacing", 2)[::-1],
            _floats(found, "ImageOrientationPatient", 6),
            _floats(found, "ImagePositionPatient", 3),
            int(found.get("BitsAllocated") or 16),
            UID(found.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian),
            found.get("LossyImageCompression") == "01",
            str(found.get("RescaleType") or "HU").upper() in ("HU", "US", "HU_MOD"),
        )


def _whole(value: object) -> int | None:
    return None if value is None or value == "" else int(value)


def _floats(found: pydicom.Dataset, name: str, count: int) -> tuple[float, ...]:
    """A tag's numbers; none where it is missing, of another length or not finite."""
    value = found.get(name)
    numbers = tuple(float(number) for number in value) if isinstance(value, Iterable) else ()
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else ()


def group(files: Iterable[Path]) -> tuple[list[Series], list[tuple[str, str]], list[str]]:
    """Files as CT series, by series number; DICOM files that are refused; and those set aside, counted by folder.

    Localizers, secondary captures, projections, colour images and other modalities are set aside, and series whose
    images lie at one position (contrast monitoring). Images doubled at one position with the same pixels are dropped.
    """
    members: dict[tuple[str, str], list[Slice]] = defaultdict(list)
    refused, others = [], defaultdict(int)
    for file in files:
        try:
            with one_reason(file):
                if not is_dicom(file):
                    continue
                found = read_slice(file)
        except CTError as error:
            refused.append((str(file), str(error)))
            continue
        if isinstance(found, str):
            others[file.parent, found] += 1
        else:
            members[found.study, found.series].append(found)
    series = []
    for slices in members.values():
        ordered = order(slices)
        kept = distinct(ordered)
        positions = {one.position for one in kept}
        if len(positions) == 1 and not kept[0].multiframe and () not in positions:
            others[kept[0].file.parent, "CT at a single position"] += len(ordered)
            continue
        doubled = len(ordered) - len(kept)
        notes = (f"{doubled} doubled slices dropped",) if doubled else ()
        series.append(Series(kept[0].series, kept[0].number, kept[0].study, tuple(kept), notes))
    for index, one in enumerate(series):
        folders = {each.file.parent for each in one.slices}
        beside = sorted((what, count) for (folder, what), count in others.items() if folder in folders)
        notes = (f"{count} DICOM files beside it set aside ({what})" for what, count in beside)
        series[index] = one._replace(notes=(*one.notes, *notes))
    series.sort(key=lambda one: (one.slices[0].file.parent, one.number is None, one.number or 0, -len(one.slices)))
    aside = [f"{folder}: {count} DICOM files set aside ({what})" for (folder, what), count in sorted(others.items())]
    return series, refused, aside


def order(slices: list[Slice]) -> list[Slice]:
    """Slices by their position along the first one's normal; by number where one has no place."""
    if any(not one.position or not one.directions for one in slices):
        return sorted(slices, key=lambda one: (one.instance, one.file))
    normal = np.cross(*np.split(np.asarray(slices[0].directions), 2))
    return sorted(slices, key=lambda one: (float(normal @ one.position), one.instance, one.file))


def distinct(slices: list[Slice]) -> list[Slice]:
    """Slices without those that repeat, at one position, another's pixels."""
    places = defaultdict(list)
    for one in slices:
        places[one.position].append(one)
    doubled = {place for place, group in places.items() if place and len(group) > 1}
    seen, kept = set(), []
    for one in slices:
        key = (one.position, _pixels(one.file)) if one.position in doubled else one.file
        if key not in seen:
            seen.add(key)
            kept.append(one)
    return kept


def _pixels(file: Path) -> str:
    """A digest of a file's pixels and of what turns them into HU; its path, where they cannot be read."""
    try:
        found = dataset(file)
        scale = f"{found.RescaleSlope} {found.RescaleIntercept}"
        return hashlib.sha256(found.PixelData + scale.encode()).hexdigest()
    except (CTError, AttributeError):
        return str(file)
