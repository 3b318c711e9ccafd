"""What a case is, and the small CT that all of them spoil."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

AFFINE = np.diag([-9.0, -9.0, 12.0, 1.0])
AFFINE[:3, 3] = 100, 80, -300
CODES = ["".join(codes) for axes in permutations(("LR", "PA", "IS")) for codes in product(*axes)]


class Case(NamedTuple):
    """One input.

    Args:
        name: what it is.
        says: words of the line that refuses it, or of the note or the doubt that goes with it.
        make: makes it in an empty folder, and returns the path that a person would name.
        refused: whether it is; else it is read.
        changed: whether its voxels or its grid rightly differ from the CT's.
        scans: how many CTs it holds.
        doubted: whether what it says is a doubt, which costs a result the verdict "ok".
    """

    name: str
    says: str
    make: Callable[[Path], Path]
    refused: bool = True
    changed: bool = False
    scans: int = 1
    doubted: bool = False

    @property
    def outcome(self) -> str:
        return "refused" if self.refused else "doubted" if self.doubted else "read"


class Table:
    """Collects the cases of a module, each a function that is decorated with what it is and what must come of it."""

    def __init__(self):
        self.cases: list[Case] = []

    def refused(self, name: str, says: str) -> Callable:
        return self._add(name, says, True)

    def read(self, name: str, says: str = "", changed: bool = False, scans: int = 1) -> Callable:
        return self._add(name, says, False, changed, scans)

    def doubted(self, name: str, says: str) -> Callable:
        return self._add(name, says, False, True, 1, True)

    def _add(self, name: str, says: str, *outcome) -> Callable:
        def add(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
            self.cases.append(Case(name, says, make, *outcome))
            return make

        return add


def ct() -> np.ndarray:
    """HU (24, 20, 12), int16: a body of soft tissue in fat in air, with a bone, and noise."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in (24, 20, 12)), indexing="ij")
    radius = np.hypot(x, 1.3 * y)
    hu = np.select([np.hypot(x, y - 0.4) < 0.15, radius < 0.7, radius < 0.85], [400, 60 + 10 * z, -100], -1000)
    return (hu + np.random.default_rng(0).normal(0, 8, hu.shape)).clip(-1024).astype(np.int16)


def save(path: Path, array: np.ndarray | None = None, affine: np.ndarray = AFFINE, **fields: object) -> Path:
    """A NIfTI, by default of the CT; `fields` are then set in the header of the file, which must not be gzipped."""
    image = nib.Nifti1Image(ct() if array is None else array, affine)
    image.set_qform(affine, "scanner", strip_shears=True)
    image.set_sform(affine, "scanner")
    nib.save(image, path)
    if fields:
        content = bytearray(path.read_bytes())
        header = np.frombuffer(content, nib.nifti1.header_dtype, 1)
        for name, value in fields.items():
            header[name][0] = value
        path.write_bytes(content)
    return path


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
