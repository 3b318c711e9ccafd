"""Where the voxels of MetaImage and NRRD files are, by their headers."""

import re
from pathlib import Path

from .errors import CTError
from .stream import Stored

TEXT = 2**16  # bytes; longest header
PACKINGS = {"raw": "raw", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}  # NRRD's names


def stored(path: Path) -> tuple[Stored, dict[str, str]]:
    """Where the voxels are, and the header's fields, names in lower case.

    Raises:
        CTError: the voxels are not in the file or, for .mhd, in one file beside it; or their encoding is not read.
    """
    with open(path, "rb") as file:
        start = file.read(TEXT)
    return (_nrrd if path.suffix.lower() == ".nrrd" else _metaimage)(path, start)


def _metaimage(path: Path, start: bytes) -> tuple[Stored, dict[str, str]]:
    found = re.search(rb"^ElementDataFile[ \t]*=[ \t]*([^\n]*?)[ \t\r]*(\n|\Z)", start, re.M)
    text = start[: found.end() if found else 0].decode("latin-1")
    fields = {
        key.strip().lower(): value.strip() for key, _, value in (line.partition("=") for line in text.split("\n"))
    }
    named = fields.get("elementdatafile", "")
    local = named.upper() == "LOCAL"
    if not local and (path.suffix.lower() == ".mha" or not re.fullmatch(r"[^/\\:%]+", named) or named == "LIST"):
        raise CTError(f"{path}: its voxels are not in one file beside it; write it as .mha or .nii.gz.")
    held = path if local else path.parent / named
    if not held.is_file():
        raise CTError(f"{path}: the file of its voxels, {named}, is missing; copy it to the same folder.")
    if not _true(fields.get("binarydata", "true")):
        raise CTError(f"{path}: its voxels are written as text, which is not read; write it as .mha or .nii.gz.")
    packing = "zlib" if _true(fields.get("compresseddata", "")) else "raw"
    skipped = _whole(path, "HeaderSize", fields.get("headersize", "0"), -1 if packing == "raw" else 0)
    return Stored(held, packing, skipped or (found.end() if found and local else 0)), fields


def _nrrd(path: Path, start: bytes) -> tuple[Stored, dict[str, str]]:
    found = re.search(rb"\r?\n\r?\n", start)
    lines = start[: found.start() if found else 0].decode("latin-1").splitlines()
    pairs = (line.partition(":") for line in lines[1:] if not line.startswith("#") and ":=" not in line)
    fields = {key.strip().lower().replace(" ", ""): value.strip() for key, _, value in pairs}
    if "datafile" in fields:
        raise CTError(f"{path}: its voxels are in another file; write header and voxels as one .nrrd.")
    if not lines or not lines[0].startswith("NRRD000"):
        raise CTError(f"{path}: cannot be read: not a NRRD, or damaged.")
    encoding = fields.get("encoding", "").lower()
    if encoding not in PACKINGS:
        raise CTError(f"{path}: encoding {encoding or 'unstated'} is not read; write it raw or gzip.")
    packing = PACKINGS[encoding]
    skip = _whole(path, "byte skip", fields.get("byteskip", "0"), -1 if packing == "raw" else 0)
    offset = found.end() if found else 0
    if lines_skipped := _whole(path, "line skip", fields.get("lineskip", "0"), 0):
        with open(path, "rb") as file:
            file.seek(offset)
            for _ in range(lines_skipped):
                if len(file.readline(TEXT)) == TEXT:
                    raise CTError(f"{path}: line skip {lines_skipped} leads into the voxels; damaged, export it again.")
            offset = file.tell()
    return Stored(path, packing, -1) if skip < 0 else Stored(path, packing, offset, skip), fields


def _true(text: str) -> bool:
    return text[:1] in ("T", "t", "1")  # as ITK reads it


def _whole(path: Path, name: str, text: str, least: int) -> int:
    if not re.fullmatch(r"-?\d{1,18}", text) or int(text) < least:
        raise CTError(f"{path}: {name} {text} is not valid here; the file is damaged, export it again.")
    return int(text)
