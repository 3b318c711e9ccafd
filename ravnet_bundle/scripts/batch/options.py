"""The options of `segment`, the outcome of a study, the settings of a command: data that processes send each other."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .shards import Shard

MESH_FORMATS = ("stl", "ply", "obj")


def _option(default: Any, help: str, **more: Any) -> Any:
    """A field with its help text and more arguments for `argparse`."""
    return field(default=default, metadata={"help": help, **more})


def _workers(text: str) -> int | str:
    return int(text) if text.isdigit() else text


@dataclass(frozen=True)
class Options:
    """The options of `segment`; `ravnet segment --help` explains each.

    Raises:
        ValueError: a wrong shard, mesh format, number of threads or workers; the file of weights does not exist.
    """

    series: str | None = _option(
        None, "DICOM: only the series with this number, or the largest; by default all", metavar="N|largest"
    )
    seg: bool = _option(False, "also write DICOM SEG, with the patient's data")
    rtstruct: bool = _option(False, "also write RTSTRUCT, with the patient's data")
    sr: bool = _option(False, "also write SEG, and DICOM SR with the measures")
    probabilities: bool = _option(False, "also write the network's probabilities")
    mesh: str | None = _option(None, "also write the liver's surface (mm, LPS)", metavar="|".join(MESH_FORMATS))
    native: bool | None = _option(
        None, "the CTs have no contrast agent: tell if the liver may be fatty", action="store_true"
    )
    height: float | None = _option(None, "patient's height, for the standard liver volume", type=float, metavar="CM")
    weight: float | None = _option(None, "patient's weight", type=float, metavar="KG")
    bsa: float | None = _option(None, "body surface area, if height or weight is not known", type=float, metavar="M2")
    anonymous: bool = _option(True, "DICOM: paths and headers only in SEG, RTSTRUCT and SR; this is the default")
    resume: bool = _option(False, "keep complete results of earlier runs")
    fast: bool = _option(False, "larger pixels: faster, slightly coarser masks")
    weights: str | None = _option(None, "other weights, for example fine-tuned ones", metavar="FILE")
    device: str | None = _option(None, "cpu, cuda, cuda:1, mps; by default a GPU if any", metavar="NAME")
    threads: int | None = _option(None, "CPU threads; by default all cores", type=int, metavar="N")
    shard: str = _option("0/1", "do only part I of N of the CTs; I counts from 0", metavar="I/N")
    workers: int | str | None = _option(
        None,
        "processes to start, or the address of a Dask scheduler (tcp://HOST:8786)",
        type=_workers,
        metavar="N|ADDRESS",
    )

    def __post_init__(self) -> None:
        if self.sr:
            object.__setattr__(self, "seg", True)  # the SR refers to the SEG
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
        """Facts about scan and patient, for `assessment.measure`."""
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
        name: its folder in the output, and its row in `measures.csv`.
        source: the input: a file, a folder, a zip.
        status: "done", "kept" (complete before, or done by another process) or "failed".
        error: one line with the fault and the remedy; empty unless failed.
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
    """The settings of all studies of one command.

    Attributes:
        output: folder of the results, absolute.
        options: the user's options; `options.weights` is absolute.
        version, weights: see `provenance.software`.
        started: seconds since 1970; a study completed later than this is not done again.
    """

    output: Path
    options: Options
    version: str
    weights: str
    started: float

    @property
    def about(self) -> dict[str, Any]:
        """The settings that change results, for the manifest."""
        return {"version": self.version, "weights": self.weights, **self.options.about}
