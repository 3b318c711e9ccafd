"""A zip of DICOM -> its DICOM files in a folder, under names of ours."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

from .errors import CTError, one_reason
from .geometry import check_claim

MEMBERS = 100_000  # files in an archive
BYTES = 2**34  # of DICOM in an archive: 16 GB, five times the largest CT that is read
PREAMBLE = 132


def unpack_dicom(archive: Path, under: Path) -> tuple[list[Path], int]:
    """The DICOM files of a zip, unpacked into a new folder in `under`; and how many other files it holds.

    An entry is DICOM by its preamble and is written under a number, so that no name in the archive can lead anywhere;
    nothing else is written, links included.

    Raises:
        CTError: an archive that is damaged, encrypted, or larger than `BYTES`; nothing of it stays.
    """
    with one_reason(archive, "damaged zip"), zipfile.ZipFile(archive) as opened:
        members = [member for member in opened.infolist() if not member.is_dir()]
        if len(members) > MEMBERS:
            raise CTError(f"{archive}: {len(members)} files in one zip, {MEMBERS} at most; unpack the series yourself.")
        if any(member.flag_bits & 1 for member in members):
            raise CTError(f"{archive}: encrypted; unpack it yourself and give the folder.")
        dicom = [member for member in members if _is_dicom(opened, member)]
        claimed = sum(member.file_size for member in dicom)
        if claimed > BYTES:
            raise CTError(f"{archive}: {claimed / 2**30:.0f} GB of DICOM in one zip; unpack the series yourself.")
        check_claim(claimed, archive.stat().st_size, True, archive)
        under.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=under))
        try:
            files = []
            for number, member in enumerate(dicom):
                files.append(folder / f"{number:06d}.dcm")
                with opened.open(member) as packed, open(files[-1], "wb") as written:
                    shutil.copyfileobj(packed, written)
            return files, len(members) - len(dicom)
        except BaseException:
            shutil.rmtree(folder)
            raise


def _is_dicom(opened: zipfile.ZipFile, member: zipfile.ZipInfo) -> bool:
    with opened.open(member) as packed:
        return packed.read(PREAMBLE)[128:] == b"DICM"
