"""Scan files by their names and first bytes; safe writing of files."""

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
    """A data set that cannot be used. Its text is one line that says what to do."""


class Missing(Sequence):
    """A data list that raises its error when an item is read, not when a config is evaluated.

    MONAI evaluates whole configs, for example in 3D Slicer's training, which brings its own scans. The length is 1, so
    that a loop reads the first item.
    """

    def __init__(self, error: Exception):
        self.error = error

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        raise self.error


def scan_name(path: str | Path) -> str:
    """A scan's name: the file's or folder's name without the extension."""
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
    """Whether 132 bytes are DICOM's preamble (part 10 of the standard) or, in old files, a first element.

    Such an element has group 2 or 8, and two letters as its type or a short length.
    """
    group, number, length = (int.from_bytes(start[at : at + size], "little") for at, size in ((0, 2), (2, 2), (4, 4)))
    typed = re.fullmatch(b"[A-Z]{2}", start[4:6]) is not None
    return start[128:] == b"DICM" or (group in (2, 8) and number < 0x20 and (typed or 0 < length <= 1024))


def is_label(path: Path) -> bool:
    """Whether a file is where TotalSegmentator, nnU-Net, the Decathlon, LiTS and KiTS keep masks."""
    folder, name = path.parent, scan_name(path)
    if folder.name.startswith("labels"):
        return folder.with_name(folder.name.replace("labels", "images")).is_dir()
    if re.fullmatch(r"segmentation-\d+", name):
        return True
    beside = folder / "imaging" if name == "segmentation" else folder.parent / "ct"
    known = name == "segmentation" or folder.name == "segmentations"
    return known and any(Path(f"{beside}{ending}").exists() for ending in IMAGES)


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows as CSV with a header; columns in order of first appearance; missing values are empty."""
    text = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A binary file to write: after any kill, `path` holds either the old content or all of the new.

    The file gets a temporary name in the same folder (made if missing), is flushed and renamed. The temporary name is
    always the same, so the next try overwrites what a kill left. The folder is flushed too, so that files survive a
    power cut in the order of writing. After an exception the temporary file is removed.
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
    except PermissionError:  # Windows opens no folders; there they need no flush
        return
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
