"""What is to be read, and what a header says of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Scan:
    """One CT to segment.

    Args:
        name: of its outputs: safe in any file system, unique within a run, from the names of files and folders, never
            from a patient's tags.
        source: what holds it: the image file, the DICOM files' folder, or the zip.
        files: one image file, or the DICOM files of one series in slice order.
        kind: "image", "dicom" or "memory".
        notes: what was found and done about it; without anything about the patient.
        slices: of DICOM, what the files' headers say, in the order of `files`; read again where there are none.
        which: in messages, which series of its source it is, where that holds several.
        part: in names, what tells it from other series of its folder, such as "_s2".
        given: the folder that was named, or that of the file that was; names are made of what is below it.
        identity: what tells its input from any other, in hex; of DICOM a salted hash where names are kept out.
        image: of kind "memory", its `Header`, whose layout is the voxels.
        shown: what tables call its input: its path below the folder of `given`, or a hash.
    """

    name: str
    source: Path
    files: tuple[Any, ...]
    kind: str
    notes: tuple[str, ...] = ()
    slices: tuple = field(default=(), repr=False)
    which: str = ""
    part: str = ""
    given: Path | None = None
    identity: str = ""
    shown: str = ""
    image: Any = field(default=None, repr=False, compare=False)

    @property
    def label(self) -> str:
        """What messages call it."""
        return f"{self.source}{self.which}"


@dataclass(frozen=True)
class Found:
    """What inputs hold: scans; sources that cannot be read, each with one line; and what is no CT volume, by name."""

    scans: tuple[Scan, ...]
    refused: tuple[tuple[str, str], ...]
    aside: tuple[str, ...]


@dataclass(frozen=True)
class Header:
    """What is known of a volume before its voxels are read.

    Args:
        shape: (X, Y, Z), as stored.
        affine: voxel index to RAS world in mm, as stored.
        notes: as a `Scan`'s.
        layout: what the format's own reader needs to read the voxels.
        doubts: why the affine may not be the CT's, each a sentence: no result of it is to be used unseen.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    notes: tuple[str, ...] = ()
    layout: Any = None
    doubts: tuple[str, ...] = ()
