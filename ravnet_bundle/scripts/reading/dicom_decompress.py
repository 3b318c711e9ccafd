"""Decodes JPEG-compressed DICOM slices to HU by ITK, in a process of its own.

On damaged data ITK's decoders can crash or ask for gigabytes: then one series fails, not the program. Run as a program,
this file reads DICOM files from stdin, each after its length (64 bits), and writes rows and columns (32 bits each) and
the HU (32-bit floats) to stdout. On Linux nothing is written to disk, and memory is bounded. Elsewhere a slice is a
temporary file while ITK reads it.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import numpy as np

MEMORY = 2**30  # most bytes for decoding, beside ITK itself


class Decoder:
    """The process; it starts with the first slice and ends with the context."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process:
            self.process.kill()
            self.process.communicate()

    def __call__(self, content: bytes, shape: tuple[int, int]) -> np.ndarray:
        """A file's HU, float32, of `shape` (rows, columns). Raises `ValueError` if it cannot be decoded."""
        if not self.process:
            command = [sys.executable, str(Path(__file__).resolve())]
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        to, back = cast(IO[bytes], self.process.stdin), cast(IO[bytes], self.process.stdout)
        try:
            to.write(struct.pack("<Q", len(content)) + content)
            to.flush()
        except BrokenPipeError as error:
            raise ValueError("the decoder has ended") from error
        if back.read(8) != struct.pack("<II", *shape):
            raise ValueError("not decoded, or of another size than announced")
        return np.frombuffer(bytearray(back.read(4 * shape[0] * shape[1])), "<f4").reshape(shape)


def main() -> None:
    import itk

    io = itk.GDCMImageIO  # loads ITK's DICOM part before memory is bounded
    _bound_memory()
    while length := sys.stdin.buffer.read(8):
        with _file(sys.stdin.buffer.read(struct.unpack("<Q", length)[0])) as path:  # ITK reads only files
            hu = itk.array_view_from_image(itk.imread(path, imageio=io.New()))[0]
        sys.stdout.buffer.write(struct.pack("<II", *hu.shape) + hu.astype("<f4").tobytes())
        sys.stdout.buffer.flush()


def _bound_memory() -> None:
    if Path("/proc/self/statm").exists():
        import resource

        bound = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """The path of a file with this content: in memory on Linux, else temporary."""
    if hasattr(os, "memfd_create"):
        held = os.memfd_create("slice")
        with open(held, "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{held}"
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "slice.dcm")
        path.write_bytes(content)
        yield str(path)


if __name__ == "__main__":
    main()
