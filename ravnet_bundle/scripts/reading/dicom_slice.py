"""Reads the header of a DICOM file: a CT slice, or the reason why it is not one."""

import io
import logging
import math
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeVar

import pydicom
from pydicom import uid
from pydicom.config import disable_value_validation
from pydicom.filereader import read_dataset, read_preamble

from .dicom_zip import Member
from .errors import CTError, one_reason

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # our own messages are one line

MULTIFRAME = (uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)
NO_SLICES = ("LOCALIZER", "MIP", "PROJECTION IMAGE", "SCREEN SAVE", "DOSE_INFO")  # in ImageType
SLICE = 2**26  # bytes; larger files are not opened. A slice of 4096 x 4096 has half of it
TAGS = (
    "SOPClassUID", "Modality", "ImageType", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber",
    "AcquisitionNumber", "TemporalPositionIdentifier", "InstanceNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "NumberOfFrames",
    "RescaleSlope", "RescaleIntercept", "RescaleType", "LossyImageCompression",
)  # fmt: skip


T = TypeVar("T")


class Slice(NamedTuple):
    """The header of a CT slice: lengths in mm, directions and positions in DICOM's world, LPS."""

    file: Path | Member
    patient: str
    study: str
    series: str
    number: int | None
    acquisition: tuple[int | None, int | None]  # AcquisitionNumber, TemporalPositionIdentifier
    instance: int
    multiframe: bool
    shape: tuple[int, int]  # columns, rows
    spacing: tuple[float, ...]  # between columns, between rows
    directions: tuple[float, ...]  # of a row, of a column
    position: tuple[float, ...]
    bits: int
    syntax: uid.UID
    lossy: bool
    rescaled: bool


@contextmanager
def quiet_pydicom(file: Path | Member, reason: str) -> Iterator[None]:
    """Turns pydicom's exceptions into one line about `file`, and silences its warnings."""
    with one_reason(file, reason), disable_value_validation(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def dataset(file: Path | Member, content: bytes | None = None, **options: Any) -> pydicom.Dataset:
    """Reads a DICOM file, with or without preamble; a deflated one is refused, as its size is not bounded.

    Args:
        file: the file.
        content: its bytes, if they were read before.
        options: of `pydicom.dcmread`.
    """
    with (
        quiet_pydicom(file, "damaged or truncated DICOM"),
        file.open("rb") if content is None else io.BytesIO(content) as opened,
    ):
        syntax = _meta(opened).get("TransferSyntaxUID")
        if syntax == uid.DeflatedExplicitVRLittleEndian:
            raise CTError(f"{file}: deflated DICOM is not read; inflate it first, e.g. with dcmconv of DCMTK.")
        found = pydicom.dcmread(opened, force=True, **options)
        if not syntax:  # as before 1993: pydicom guessed it
            guessed: dict = {(True, True): uid.ImplicitVRLittleEndian, (False, False): uid.ExplicitVRBigEndian}
            found.file_meta.TransferSyntaxUID = guessed.get(found.original_encoding, uid.ExplicitVRLittleEndian)
        return found


def _meta(opened: IO[bytes]) -> pydicom.Dataset:
    read_preamble(opened, force=True)
    meta = read_dataset(opened, False, True, stop_when=lambda tag, *_: tag >> 16 != 2)
    opened.seek(0)
    return meta


def read_slice(file: Path | Member) -> Slice | str:
    """A CT slice's header, or the reason why the file is not a CT slice. Raises `CTError` if it is damaged."""
    if file.stat().st_size > SLICE:
        return "over 64 MB: several images in one, or no image"
    return as_slice(file, dataset(file, stop_before_pixels=True, specific_tags=list(TAGS)))


def as_slice(file: Path | Member, found: pydicom.Dataset) -> Slice | str:
    """`read_slice` for a dataset."""
    with quiet_pydicom(file, "damaged DICOM header"):
        stored = found.file_meta.get("MediaStorageSOPClassUID") or ""
        if stored == uid.MediaStorageDirectoryStorage:
            return "DICOMDIR"
        if "SOPClassUID" not in found and "Rows" not in found:
            raise CTError(f"{file}: a damaged or truncated DICOM header; export it again.")
        kind = uid.UID(found.get("SOPClassUID") or stored or uid.CTImageStorage)  # anonymisers empty it
        modality = str(found.get("Modality"))
        types = [str(part).upper() for part in found.get("ImageType") or ()]
        if modality != "CT":
            return f"modality {modality}" if re.fullmatch("[A-Z]{2,16}", modality) else "no modality"
        if aside := next((part for part in NO_SLICES if part in types), None):
            return aside.lower()
        if kind not in (uid.CTImageStorage, *MULTIFRAME):
            return kind.name.lower() if kind.name != kind else "of an unknown kind"
        if found.get("SamplesPerPixel", 1) != 1:
            return "colour image"
        return Slice(
            file,
            _text(found, "PatientID"),
            _text(found, "StudyInstanceUID"),
            _text(found, "SeriesInstanceUID"),
            _whole(found.get("SeriesNumber")),
            (_whole(found.get("AcquisitionNumber")), _whole(found.get("TemporalPositionIdentifier"))),
            _whole(found.get("InstanceNumber")) or 0,
            kind in MULTIFRAME or (_whole(found.get("NumberOfFrames")) or 1) > 1,
            _shared((int(found.get("Columns") or 0), int(found.get("Rows") or 0))),
            _shared(_floats(found, "PixelSpacing", 2)[::-1]),
            _shared(_floats(found, "ImageOrientationPatient", 6)),
            _floats(found, "ImagePositionPatient", 3),
            int(found.get("BitsAllocated") or 16),
            _shared(uid.UID(found.file_meta.TransferSyntaxUID)),
            found.get("LossyImageCompression") == "01",
            str(found.get("RescaleType") or "HU").upper() in ("HU", "US", "HU_MOD"),
        )


@lru_cache
def _shared(value: T) -> T:
    """Shares equal values in memory: a cohort has millions of slices."""
    return value


def _text(found: pydicom.Dataset, name: str) -> str:
    return _shared(str(found.get(name) or ""))


def _whole(value: object) -> int | None:
    """A whole number, or `None` if it is missing or malformed."""
    return int(str(value)) if re.fullmatch(r" *[+-]?\d{1,12} *", str(value)) else None


def _floats(found: pydicom.Dataset, name: str, count: int) -> tuple[float, ...]:
    """A tag's numbers, or () if it is missing, of another length or not finite."""
    value = found.get(name)
    numbers = tuple(float(number) for number in value) if isinstance(value, Iterable) else ()
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else ()
