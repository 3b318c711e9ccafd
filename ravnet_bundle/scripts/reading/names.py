"""Names of outputs, made from paths, unique within a run."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..files import scan_name
from .scan import Scan

LONGEST = 80  # characters of a name; a UID has 64 at most
# File names that do not tell the case, as in data sets (`s0001/ct.nii.gz`, `case_00000/imaging.nii.gz`).
GENERAL = (
    "ct", "ct_image", "dcm", "dicom", "image", "images", "imaging", "img", "input", "original", "scan", "series",
    "volume",
)  # fmt: skip


def safe_name(text: str) -> str:
    """`text` as a file name: at most `LONGEST` letters, digits, `.`, `-` and `_`, without leading dots or dashes."""
    return re.sub(r"[^\w.-]+", "_", unicodedata.normalize("NFC", text)).lstrip(".-")[:LONGEST] or "scan"


def key(scan: Scan) -> str:
    """Identifies a scan on this machine: its path, and for DICOM its first file too."""
    path = str(scan.source.absolute())
    if scan.kind == "image":
        return path
    first = scan.files[0]
    return f"{path}/{first.relative_to(scan.source) if scan.source in first.parents else first.name}"


def names(scan: Scan, whole: bool = False) -> Iterator[str]:
    """Names for a scan from its path, best first; the last one is unique.

    The first joins the folders below the given one and the file's (or DICOM folder's) name. A general name (`GENERAL`)
    gets the folder above in front. Each next name has one more folder. The last is the first with a hash of the path.
    `whole` keeps a file's extension, which tells `x.nii` from `x.nii.gz`.
    """
    source = scan.source.absolute()
    parts = [*source.parts[1:-1], source.stem if source.suffix.lower() == ".zip" else source.name]
    if scan.kind == "image" and not whole:
        parts[-1] = scan_name(source)
    below = source.relative_to(scan.given).parts if scan.given in (source, *source.parents) else ()
    least = max(1, len(below))
    while least < len(parts) and all(scan_name(part).lower() in GENERAL for part in parts[-least:]):
        least += 1
    for count in range(least, len(parts) + 1):
        yield safe_name("_".join(parts[-count:]) + scan.part)
    digest = hashlib.sha256(key(scan).encode("utf-8", "surrogateescape")).hexdigest()[:10]
    yield f"{safe_name('_'.join(parts[-least:]) + scan.part)[: LONGEST - 11]}-{digest}"


def named_apart(scans: Sequence[Scan]) -> list[Scan]:
    """Gives each scan the best of its `names` that no other scan has, whatever their order."""
    beside = Counter(_beside(scan) for scan in scans)
    ways = [list(dict.fromkeys(names(scan, beside[_beside(scan)] > 1))) for scan in scans]
    choice = [0] * len(scans)
    while True:
        chosen = [way[number] for way, number in zip(ways, choice, strict=True)]
        count = Counter(name.casefold() for name in chosen)
        alike = [k for k, name in enumerate(chosen) if count[name.casefold()] > 1 and choice[k] < len(ways[k]) - 1]
        if not alike:
            return [replace(scan, name=name) for scan, name in zip(scans, chosen, strict=True)]
        for k in alike:
            choice[k] += 1


def _beside(scan: Scan) -> tuple[str, str]:
    """Equal for files of one folder that differ only in their extensions."""
    return str(scan.source.parent), scan_name(scan.source).casefold()
