"""Which files may be scans, and how a file is written so that it is whole at every moment."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

IMAGES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")


class DataError(ValueError):
    """A data set that cannot be used as it is; its text is one line that says what to do."""


class Missing(Sequence):
    """Data that cannot be listed: says why when one is asked for, not when a config that names them is evaluated.

    MONAI evaluates whole configs: 3D Slicer's training does, and `check_properties()`. A training on scans of its own
    then never looks at the folder. The length is 1: whoever goes through the data asks for the first.
    """

    def __init__(self, error: Exception):
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        raise self.error


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


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as CSV with a header; columns are in the order of their first row; a missing value is empty."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary file to write, such that `path` holds, after any kill, either the old content or all of the new.

    It is written under a temporary name in the same folder (made if need be; always the same name, so that what a kill
    leaves is overwritten by the next try), flushed to the disk and renamed; then the folder is flushed, so that files
    written one after the other are also found in that order after a power cut. After an exception nothing is left of
    it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    try:
        folder = os.open(path.parent, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders, and needs none to be flushed
        return
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
