"""What can be asked of `segment`, each option once, and how a study ended: data that processes send each other."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .shards import Shard

MESH_FORMATS = ("stl", "ply", "obj")


def _option(default: Any, help: str, **more: Any) -> Any:
    """A field, with its text and what else `argparse` needs to read it."""
    return field(default=default, metadata={"help": help, **more})


def _workers(text: str) -> int | str:
    return int(text) if text.isdigit() else text


@dataclass(frozen=True)
class Options:
    """The options of `segment`; `ravnet segment --help` says what each one does.

    Raises:
        ValueError: no such shard, number of threads or workers, or file of weights.
    """

    series: str | None = _option(
        None, "the DICOM series by its number, or the largest; by default each", metavar="N|largest"
    )
    seg: bool = _option(False, "write DICOM SEG too (DICOM input; holds the patient's data)")
    rtstruct: bool = _option(False, "write RTSTRUCT too (DICOM input; holds the patient's data)")
    sr: bool = _option(False, "write the measures as DICOM SR, and the SEG (DICOM input; holds the patient's data)")
    probabilities: bool = _option(False, "write the network's probabilities too")
    mesh: str | None = _option(None, "write the liver's surface too (mm, LPS)", metavar="|".join(MESH_FORMATS))
    native: bool | None = _option(None, "scans without contrast agent: steatosis hint", action="store_true")
    height: float | None = _option(None, "the patient's, for the standard liver volume", type=float, metavar="CM")
    weight: float | None = _option(None, "the patient's", type=float, metavar="KG")
    bsa: float | None = _option(None, "body surface, instead of height and weight", type=float, metavar="M2")
    anonymous: bool = _option(True, "of DICOM, keep all that may say whose it is out of names, tables and reports (on)")
    resume: bool = _option(False, "keep results that are complete and unharmed")
    fast: bool = _option(False, "larger pixels: quicker, a little coarser")
    weights: str | None = _option(None, "weights of this network, such as fine-tuned ones", metavar="FILE")
    device: str | None = _option(None, "cpu, cuda, cuda:1, mps; by default the GPU if there is one", metavar="NAME")
    threads: int | None = _option(None, "CPU threads; by default all cores", type=int, metavar="N")
    shard: str = _option("0/1", "do part I of N of the studies; I counts from 0", metavar="I/N")
    workers: int | str | None = _option(
        None, "processes to start, or a Dask scheduler (tcp://HOST:8786)", type=_workers, metavar="N|ADDRESS"
    )

    def __post_init__(self) -> None:
        if self.sr:
            object.__setattr__(self, "seg", True)  # the SR refers to it
        Shard.parse(self.shard)
        if self.weights is not None and not os.path.isfile(self.weights):
            raise ValueError(f"weights {self.weights}: no such file.")
        if self.mesh not in (None, *MESH_FORMATS):
            raise ValueError(f"mesh {self.mesh}: give {', '.join(MESH_FORMATS)}.")
        for name in ("threads", "workers"):
            number = getattr(self, name)
            if isinstance(number, int) and number < 1:
                raise ValueError(f"{name} {number}: give a number from 1.")

    @property
    def body(self) -> dict[str, Any]:
        """What is known of the scan and the patient, for `assessment.measure`."""
        return {"native": self.native, "height_cm": self.height, "weight_kg": self.weight, "bsa_m2": self.bsa}

    @property
    def about(self) -> dict[str, Any]:
        """The options that a study's results depend on, for its manifest."""
        names = ("fast", "anonymous", "seg", "rtstruct", "sr", "mesh", "probabilities")
        return {name: getattr(self, name) for name in names} | self.body


@dataclass(frozen=True)
class Outcome:
    """How one study ended.

    Attributes:
        name: of its folder in the output, and of its row in `measures.csv`.
        source: what was given: a file, a folder, a zip.
        status: "done", "kept" (complete before, or done by another process) or "failed".
        error: one line that says what is wrong and what to do; empty unless failed.
        verdict: "ok", "review" or "reject"; empty if failed.
        reasons: of the verdict.
        volume_ml: of the liver; `None` if failed.
    """

    name: str
    source: str
    status: str
    error: str = ""
    verdict: str = ""
    reasons: tuple[str, ...] = ()
    volume_ml: float | None = None


@dataclass(frozen=True)
class Settings:
    """What the studies of one command are done with, and since when.

    Attributes:
        output: folder of the results, absolute.
        options: what was asked for; `options.weights` is absolute.
        version, weights: see `provenance.software`.
        started: seconds since 1970; a study that is complete and younger than this is not done again.
    """

    output: Path
    options: Options
    version: str
    weights: str
    started: float

    @property
    def about(self) -> dict[str, Any]:
        """What results depend on beside the CT, for the manifest."""
        return {"version": self.version, "weights": self.weights, **self.options.about}
