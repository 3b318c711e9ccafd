"""What is asked of every study, and how one ended: plain data, which processes send to each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .options import Options


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
