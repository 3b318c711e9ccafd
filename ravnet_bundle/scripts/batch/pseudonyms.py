"""Names of results: unique in the output folder; for DICOM, without anything about the patient."""

import hashlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from ..files import atomic
from ..reading import Scan
from ..reading.errors import one_line
from ..reading.names import key, names
from .claims import Claim
from .locks import lock, shares
from .results import MANIFEST, owner

SALT, LENGTH = ".salt", 32  # bytes


@contextmanager
def salted(output: Path) -> Iterator[bytes]:
    """The salt of an output folder; made if missing, and removed if there are no results in the end.

    It is a file in the folder, so that all processes and later runs give the same names. Whoever has it can test
    whether a name belongs to a path: leave it out when you give results away.

    Raises:
        OSError: the folder cannot be written to.
    """
    path = output / SALT
    with Claim.alone(output, "salt") as made:  # no other process makes or removes it
        if not path.exists():
            with atomic(path) as file:
                file.write(secrets.token_bytes(LENGTH))
        descriptor = os.open(path, os.O_RDWR)
        lock(descriptor, wait=True, shared=True)  # other processes use it too
        salt = path.read_bytes()
    try:
        yield salt
    finally:
        with suppress(OSError), Claim.alone(output, "salt"):  # somebody may have removed the folder
            alone = shares() and lock(descriptor)  # without shared locks this is unknown, and the salt stays
            if alone and not any(output.glob(f"*/{MANIFEST}")):
                path.unlink()
        os.close(descriptor)
        if made:
            with suppress(OSError):  # there are results
                output.rmdir()


def salt_there(output: Path) -> bytes:
    """The salt of an output folder, or a random one; nothing is written."""
    with suppress(OSError):
        return (output / SALT).read_bytes()
    return secrets.token_bytes(LENGTH)


def hidden(scans: Sequence[Scan], anonymous: bool) -> bool:
    """Whether the names of any of the scans must be hidden."""
    return anonymous and any(scan.kind == "dicom" for scan in scans)


def settle(scans: Sequence[Scan], output: Path, anonymous: bool, salt: bytes = b"") -> tuple[Scan, ...]:
    """Gives the scans their names in `output`, and sets `identity` and `shown`.

    An input with results in `output` keeps its name there; a name of another input's results is not taken. Anonymous
    DICOM is named by a salted hash of the path, without anything of path or header. Formats without a patient in their
    header (NIfTI, NRRD, MetaImage) keep their file names.

    Args:
        scans: of `reading.find`.
        output: the folder for the results; it may not exist yet.
        salt: of the output folder, see `salted`; only for `anonymous` DICOM.
    """
    scans = [_identified(scan, anonymous, salt) for scan in scans]
    there = {name.name for name in output.iterdir()} if output.is_dir() else set()

    def owned(name: str) -> str | None:
        return owner(output / name) if name in there else None

    ways = [_ways(scan, anonymous) for scan in scans]
    settled = [next((name for name in way if owned(name) == scan.identity), "") for scan, way in zip(scans, ways)]
    used = {name.casefold() for name in settled}
    for k, way in enumerate(ways):
        if not settled[k]:
            free = (name for name in way if name.casefold() not in used and owned(name) is None)
            settled[k] = next(free, other_name(way[0], scans[k]))
            used.add(settled[k].casefold())
    return tuple(replace(scan, name=name, shown=scan.shown or name) for scan, name in zip(scans, settled, strict=True))


def other_name(name: str, scan: Scan) -> str:
    """A name for a scan if another input has its first name."""
    return f"{name[:60]}-{scan.identity[:10]}"


def _identified(scan: Scan, anonymous: bool, salt: bytes) -> Scan:
    secret = salt if anonymous and scan.kind == "dicom" else b""
    identity = hashlib.sha256(secret + key(scan).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    source = scan.source.absolute()
    given = scan.given.parent if scan.given in (source, *source.parents) else source.parent
    return replace(scan, identity=identity, shown="" if secret else one_line(source.relative_to(given)))


def _ways(scan: Scan, anonymous: bool) -> list[str]:
    if anonymous and scan.kind == "dicom":
        return [f"ct-{scan.identity[:10]}"]
    return list(dict.fromkeys((scan.name, *names(scan), *names(scan, whole=True))))
