"""A file's voxels as a stream, packed or raw: exactly as many as its header claims, or an error.

Packed voxels are checked: the stream must end, its checksum must agree, and it must hold as many bytes as claimed.
"""

import bz2
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from .errors import CTError

try:
    from isal import isal_zlib as zlib  # inflates twice as fast
except ImportError:  # an environment of others, such as MONAI Label's
    import zlib  # type: ignore[no-redef]

Readable = BinaryIO | io.BufferedReader | bz2.BZ2File

BLOCK = 2**18  # bytes read at once
SURPLUS = 2**30  # most bytes between the voxels and the checksum


class Stored(NamedTuple):
    """Where a file holds voxels.

    Args:
        file: the file.
        packing: "raw", "zlib" (also a gzip stream), "gzip" or "bzip2".
        offset: bytes before them in the file; -1, for raw voxels: they are at its end.
        skip: bytes before them in the unpacked stream.
        exact: whether nothing may follow them.
    """

    file: Path
    packing: str
    offset: int = 0
    skip: int = 0
    exact: bool = True


def planes(stored: Stored, dtype: np.dtype, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The slices (X, Y), one after the other, as stored.

    Raises:
        CTError: more voxels than claimed.
        Exception: fewer voxels than claimed, or damaged data; any kind, from `zlib` and `bz2`.
    """
    size = shape[0] * shape[1] * dtype.itemsize
    with open(stored.file, "rb") as file:
        if stored.offset < 0:
            file.seek(-size * shape[2], io.SEEK_END)
        else:
            file.seek(stored.offset)
        with _opened(file, stored.packing) as unpacked:
            _exactly(unpacked, stored.skip)
            for _ in range(shape[2]):
                yield np.frombuffer(_exactly(unpacked, size), dtype).reshape(shape[:2], order="F")
            if stored.exact and unpacked.read(1):
                raise CTError(f"{stored.file}: damaged: more voxels than its header claims; export it again.")
            if stored.packing != "raw":
                _to_the_end(unpacked, stored.file)


def _opened(file: BinaryIO, packing: str) -> Readable:
    match packing:
        case "zlib":
            return io.BufferedReader(_Unpacked(file, zlib.MAX_WBITS | 32), BLOCK)  # 32: zlib or gzip
        case "gzip":
            return io.BufferedReader(_Unpacked(file, zlib.MAX_WBITS | 16, several=True), BLOCK)
        case "bzip2":
            return bz2.BZ2File(file)
    return file


def _exactly(file: Readable, size: int) -> bytes:
    found = file.read(size)
    if len(found) != size:
        raise EOFError
    return found


def _to_the_end(file: Readable, path: Path) -> None:
    """Reads to the end, where the checksum is compared."""
    for _ in range(SURPLUS // BLOCK):
        if not file.read(BLOCK):
            return
    raise CTError(f"{path}: damaged: over {SURPLUS >> 30} GB after the voxels that its header claims; export it again.")


class _Unpacked(io.RawIOBase):
    """Unpacks a zlib or gzip stream of a file to its end, and compares its checksum.

    A gzip file may hold several streams, and zeros after each. Python's `GzipFile` is slower: it unpacks 8 kB at once,
    and blocks other threads meanwhile.
    """

    def __init__(self, file: BinaryIO, bits: int, several: bool = False):
        self.file, self.bits, self.several = file, bits, several
        self.inflate, self.left = zlib.decompressobj(bits), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # all that `BufferedReader` gives it
        found = b""
        while not found and (not self.inflate.eof or self._another()):
            given = self.left or self.file.read(BLOCK)
            found = self.inflate.decompress(given, len(buffer))
            self.left = self.inflate.unused_data if self.inflate.eof else self.inflate.unconsumed_tail
            if not given and not found:
                raise EOFError
        buffer[: len(found)] = found
        return len(found)

    def _another(self) -> bool:
        """Begins the next stream, if there is one."""
        while self.several:
            given = self.left or self.file.read(BLOCK)
            self.left = given.lstrip(b"\0")
            if self.left:
                self.inflate = zlib.decompressobj(self.bits)
                return True
            if not given:
                break
        return False
