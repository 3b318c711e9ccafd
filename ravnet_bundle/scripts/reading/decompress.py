"""JPEG-compressed DICOM slices -> HU by ITK, in a process of its own.

Its decoders, on damaged data, can end their process or ask for gigabytes; here that costs one series and not the
program. Run as a program, this file reads paths from its input, apart by null bytes, and writes for each two 32-bit
numbers, rows and columns, and the HU as 32-bit floats.
"""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

MEMORY = 2**30  # bytes that decoding may take beside what ITK itself does


def decompressed(files: Sequence[Path], shape: tuple[int, int]) -> Iterator[np.ndarray]:
    """Each file's HU, float32, of `shape` (rows, columns). Raises `ValueError` where one cannot be decoded to that."""
    command = [sys.executable, str(Path(__file__).resolve())]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as process:
        try:
            process.stdin.write(b"\0".join(os.fsencode(file) for file in files))
            process.stdin.close()
            size = 4 * shape[0] * shape[1]
            for _ in files:
                if process.stdout.read(8) != struct.pack("<II", *shape):
                    raise ValueError("not decoded, or of another size than announced")
                yield np.frombuffer(bytearray(process.stdout.read(size)), "<f4").reshape(shape)
        finally:
            process.kill()


def main() -> None:
    import itk

    io = itk.GDCMImageIO  # loads ITK's DICOM part before memory is bounded
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bound = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    for file in sys.stdin.buffer.read().split(b"\0"):
        hu = itk.array_view_from_image(itk.imread(os.fsdecode(file), imageio=io.New()))[0]
        sys.stdout.buffer.write(struct.pack("<II", *hu.shape) + hu.astype("<f4").tobytes())
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
