"""JPEG-compressed DICOM slices -> HU by ITK, in a process of its own.

Its decoders, on damaged data, can end their process or ask for gigabytes; here that costs one series and not the
program. Run as a program, this file reads DICOM files from its input, each after its length in 64 bits, and writes for
each two 32-bit numbers, rows and columns, and the HU as 32-bit floats. Nothing of them is written to a disk.
"""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
from pathlib import Path
from typing import IO, cast

import numpy as np

MEMORY = 2**30  # bytes that decoding may take beside what ITK itself does


class Decoder:
    """The process, which starts with the first slice and ends with the context."""

    def __init__(self):
        self.process: subprocess.Popen | None = None

    def __enter__(self) -> Decoder:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process:
            self.process.kill()
            self.process.communicate()

    def __call__(self, content: bytes, shape: tuple[int, int]) -> np.ndarray:
        """A file's HU, float32, of `shape` (rows, columns). Raises `ValueError` where it cannot be decoded to that."""
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
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    while length := sys.stdin.buffer.read(8):
        held = os.memfd_create("slice")  # ITK reads files alone
        with open(held, "wb") as file:
            file.write(sys.stdin.buffer.read(struct.unpack("<Q", length)[0]))
            file.flush()
            hu = itk.array_view_from_image(itk.imread(f"/proc/self/fd/{held}", imageio=io.New()))[0]
        sys.stdout.buffer.write(struct.pack("<II", *hu.shape) + hu.astype("<f4").tobytes())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
