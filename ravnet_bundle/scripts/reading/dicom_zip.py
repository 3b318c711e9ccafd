"""The DICOM files of a zip; nothing is unpacked to disk."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import IO

from ..files import IMAGES, begins_as_dicom
from .checks import check_claim
from .errors import CTError, one_reason

MEMBERS = 100_000  # most files in an archive
DAMAGED = "damaged zip"


@dataclass(frozen=True, order=True)
class Member:
    """One file of a zip, with the methods of a `Path` that reading needs.

    Args:
        archive: the zip.
        index: in the zip's list; two members may have the same name.
        name: in the zip, for messages only.
        size: bytes.
    """

    archive: Path
    index: int
    name: str
    size: int

    def __str__(self) -> str:
        return f"{self.archive}: {self.name}"

    @property
    def parent(self) -> Path:
        return self.archive

    @property
    def parents(self) -> tuple[Path, ...]:
        return (self.archive, *self.archive.parents)

    def absolute(self) -> Member:
        return self

    def relative_to(self, other: Path) -> str:
        return f"{self.index}/{self.name}"

    def stat(self) -> SimpleNamespace:
        return SimpleNamespace(st_size=self.size)

    def open(self, mode: str = "rb") -> IO[bytes]:
        zipped = _opened(self.archive)
        return zipped.open(zipped.infolist()[self.index])

    def read_bytes(self) -> bytes:
        """Its content, with the checksum compared."""
        with one_reason(self, DAMAGED), self.open() as file:
            return file.read()


def members(archive: Path) -> tuple[list[Member], Counter[str]]:
    """The DICOM files of a zip, and a count of the others by kind.

    Raises:
        CTError: the zip is damaged, encrypted, or claims more than it can hold.
    """
    with one_reason(archive, DAMAGED):
        zipped = _opened(archive)
        entries = [(index, entry) for index, entry in enumerate(zipped.infolist()) if not entry.is_dir()]
        if len(entries) > MEMBERS:
            raise CTError(f"{archive}: {len(entries)} files in one zip, {MEMBERS} at most; unpack the series yourself.")
        if any(entry.flag_bits & 1 for _, entry in entries):
            raise CTError(f"{archive}: encrypted; unpack it yourself and give the folder.")
        dicom: list[Member] = []
        others: Counter[str] = Counter()
        for index, entry in entries:
            with zipped.open(entry) as file:
                if begins_as_dicom(file.read(132)):
                    dicom.append(Member(archive, index, entry.filename, entry.file_size))
                elif entry.filename.lower().endswith(IMAGES):
                    others["images in a zip are not read: unpack it"] += 1
                else:
                    others["not DICOM"] += 1
        check_claim(sum(member.size for member in dicom), archive.stat().st_size, True, archive)
        return dicom, others


def _opened(archive: Path) -> zipfile.ZipFile:
    held = os.stat(archive)
    return _kept_open(archive, held.st_mtime_ns, held.st_size)


@lru_cache(maxsize=4)  # reading the list of a large zip takes long
def _kept_open(archive: Path, *_: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(archive)
