"""`segment`: what is asked for, found, done and tabled."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..assessment import body_surface_m2
from ..inference.provenance import software
from ..reading import Scan, find
from . import results
from .pseudonyms import hidden, salted, settle
from .settings import Outcome, Settings
from .shards import Shard
from .studies import OutputFull, Run
from .team import team

logger = logging.getLogger(__name__)


def segment(
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    series: str | None = None,
    seg: bool = False,
    rtstruct: bool = False,
    probabilities: bool = False,
    native: bool | None = None,
    height: float | None = None,
    weight: float | None = None,
    bsa: float | None = None,
    anonymous: bool = True,
    resume: bool = False,
    fast: bool = False,
    weights: str | Path | None = None,
    device: str | None = None,
    threads: int | None = None,
    shard: str = "0/1",
    workers: int | str | None = None,
    progress: bool = False,
) -> list[Outcome]:
    """Segments the liver in CTs and writes, for each, a folder `output/NAME/` and a row of `output/measures.csv`.

    Args:
        inputs: one or more of: an image file (NIfTI, NRRD, MetaImage), a DICOM file or folder, a zip of DICOM, a folder
            of any of these, a text file that lists them.
        output: the folder to write to; made if need be.
        series: which DICOM series to take where there are several, see `reading.find`; otherwise each CT series.
        seg, rtstruct: write the mask as DICOM SEG, as RTSTRUCT too (DICOM inputs only; they carry the patient's data).
        probabilities: write the network's probabilities, on its own grid.
        native: the scans are without contrast agent; only then is there a hint of steatosis.
        height, weight, bsa: the patient's, in cm, kg and m2, for the standard liver volume.
        anonymous: of DICOM, keep everything that may say whose it is out of reports, tables and names: a hash stands in
            the place of names. What is printed about an input that fails names its path.
        resume: keep the studies whose results are complete, unharmed, and made of the same input with the same weights
            and settings.
        fast: larger pixels, the config's `fast_pixel_size`.
        weights: a file of weights of this network, in the place of the bundle's own, such as a fine-tuned one.
        device: of the network, such as "cpu" or "cuda"; by default the GPU if there is one.
        threads: of PyTorch on the CPU, in each worker.
        shard: "I/N": do part I, which counts from 0, of N parts of the studies.
        workers: how many processes of this machine do the studies, or the address of the Dask scheduler whose workers
            do them; by default this process. A script that gives a number needs `if __name__ == "__main__":`, as its
            processes import it.
        progress: show a bar on stderr.

    Returns:
        one `Outcome` per study, and a failed one of the table where that cannot be written, or of the output where it
        is full. A study that fails does not stop the others; a full disk does.

    Raises:
        ValueError: a height, weight or surface that is no patient's; no such shard, device, number of threads or
            workers, weights or output; no Dask, or no answer from it.
        ConnectionError: the Dask scheduler has gone.

    PyTorch's threads do not survive a fork: in a process that has called this, start others by "spawn".
    """
    body_surface_m2(height, weight, bsa)
    cut = Shard.parse(shard)
    _check(weights, device, threads, workers)
    weights_path = None if weights is None else str(Path(weights).absolute())
    settings = Settings(
        Path(output).absolute(), **software(weights_path), started=time.time(), seg=seg, rtstruct=rtstruct,
        probabilities=probabilities, native=native, height_cm=height, weight_kg=weight, bsa_m2=bsa,
        anonymous=anonymous, resume=resume, fast=fast, device=device, threads=threads,
        weights_path=weights_path,
    )  # fmt: skip
    outcomes: list[Outcome] = []
    with ExitStack() as stack:
        do = stack.enter_context(team(settings, workers)) if workers else Run(settings).do
        found = find([inputs] if isinstance(inputs, (str, Path)) else inputs, series)
        scans = settled(stack, found.scans, settings)
        found = results.set_aside(cut.of(replace(found, scans=scans)))
        for line in found.aside:
            logger.info("set aside: %s", line)
        if found.aside:
            logger.warning("what is no CT was set aside in %d places; --dry-run names them", len(found.aside))
        for source, line in found.refused:
            outcomes.append(Outcome(Path(source).name, source, "failed", line))
        bar = stack.enter_context(_bar(len(found.scans), progress))

        def end(outcome: Outcome) -> Any:
            outcomes.append(outcome)
            with suppress(OSError):  # nobody reads it any more
                bar.update()

        try:
            do(found.scans, end)
        except OutputFull as error:
            outcomes.append(Outcome(settings.output.name, str(settings.output), "failed", str(error)))
    table = _table(settings.output)
    return [*(_there(settings.output, outcome) for outcome in outcomes), *table]


def _check(weights: str | Path | None, device: str | None, threads: int | None, workers: int | str | None) -> None:
    """Raises `ValueError` for what no study could be done with."""
    if weights is not None and not Path(weights).is_file():
        raise ValueError(f"weights {weights}: no such file.")
    if threads is not None and threads < 1:
        raise ValueError(f"threads {threads}: give a number from 1.")
    if isinstance(workers, int) and workers < 1:
        raise ValueError(f"workers {workers}: give a number from 1.")
    if device is not None and not isinstance(workers, str):
        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device {device}: not here ({str(error).splitlines()[0]}).") from error


def settled(stack: ExitStack, scans: Sequence[Scan], settings: Settings) -> tuple[Scan, ...]:
    """The scans with the names that their results have in the output."""
    salt = b""
    if hidden(scans, settings.anonymous):
        try:
            salt = stack.enter_context(salted(settings.output))
        except OSError as error:
            raise ValueError(f"{settings.output}: no folder that can be written to ({error.strerror}).") from error
    return settle(scans, settings.output, settings.anonymous, salt)


def _bar(total: int, progress: bool) -> tqdm:
    with suppress(OSError):
        return tqdm(total=total, unit="CT", disable=not progress)
    return tqdm(disable=True)


def _there(output: Path, outcome: Outcome) -> Outcome:
    """How a study ended, unless somebody has removed its results since."""
    folder = output / outcome.name
    if outcome.status == "failed" or (folder / results.MANIFEST).exists():
        return outcome
    return Outcome(outcome.name, outcome.source, "failed", f"{folder}: its results were removed during the run.")


def _table(output: Path) -> list[Outcome]:
    """Writes `measures.csv`; a failed outcome where that cannot be done: the studies are there, and are to be told."""
    table = output / results.TABLE
    try:
        results.write_table(output)
        return []
    except OSError as error:
        return [Outcome(table.name, str(table), "failed", f"{table}: cannot be written: {error.strerror}.")]
