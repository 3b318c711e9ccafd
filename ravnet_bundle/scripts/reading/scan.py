"""Data classes: a scan to read, the scans found, a header."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Scan:
    """One CT to segment.

    Args:
        name: name of its outputs: safe in any file system, unique within a run, never from a patient's tags.
        source: the image file, the folder of the DICOM files, or the zip.
        files: one image file, or the DICOM files of one series in slice order.
        kind: "image", "dicom" or "memory".
        notes: remarks for the report, without anything about the patient.
        slices: DICOM only: the files' headers, in the order of `files`; if empty, they are read again.
        which: for messages: which series of its source it is, if there are several.
        part: for names: what tells it from other series of its folder, such as "_s2".
        given: the folder that the user named, or the named file's folder; names come from the path below it.
        identity: hash of the input's path, hex; salted if names are to be hidden.
        image: kind "memory" only: its `Header`, with the voxels as layout.
        shown: the input's name in tables: its path below the folder of `given`, or a hash.
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
        """Its name in messages."""
        return f"{self.source}{self.which}"


@dataclass(frozen=True)
class Found:
    """The content of inputs: scans; refused sources, each with a line; a line for each thing that is no CT volume."""

    scans: tuple[Scan, ...]
    refused: tuple[tuple[str, str], ...]
    aside: tuple[str, ...]


@dataclass(frozen=True)
class Header:
    """A volume's header, read before its voxels.

    Args:
        shape: (X, Y, Z), as stored.
        affine: voxel index to RAS world in mm, as stored.
        notes: remarks for the report.
        layout: what the format's reader needs to read the voxels.
        doubts: reasons why the affine may be wrong, each a sentence; they cost the verdict "ok".
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    notes: tuple[str, ...] = ()
    layout: Any = None
    doubts: tuple[str, ...] = ()
