"""What is asked of every study, and how one ended: plain data, which processes send to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
    """The options of `segment` that hold for each study, with what the studies are done with and since when.

    Attributes:
        version, weights: see `provenance.software`.
        weights_path: the file of weights other than the bundle's own, for each process to load.
        started: seconds since 1970; a study that is complete and younger than this is not done again.
    """

    output: Path
    version: str
    weights: str
    started: float
    seg: bool
    rtstruct: bool
    probabilities: bool
    native: bool | None
    height_cm: float | None
    weight_kg: float | None
    bsa_m2: float | None
    anonymous: bool
    resume: bool
    fast: bool
    device: str | None
    threads: int | None
    weights_path: str | None

    @property
    def wanted(self) -> dict[str, Any]:
        """Which files and which measures."""
        names = ("seg", "rtstruct", "probabilities", "native", "height_cm", "weight_kg", "bsa_m2")
        return {name: getattr(self, name) for name in names}

    @property
    def about(self) -> dict[str, Any]:
        """What results depend on beside the CT, for the manifest."""
        names = ("version", "weights", "fast", "anonymous")
        return {name: getattr(self, name) for name in names} | self.wanted
