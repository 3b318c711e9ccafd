"""`segment`: find the studies, do them, write the table."""

import logging
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from ..assessment import body_surface_m2
from ..inference.provenance import software
from ..reading import Scan, find
from . import results
from .opening import check_device
from .options import Options, Outcome, Settings
from .pseudonyms import hidden, salted, settle
from .shards import Shard
from .studies import OutputFull, Run
from .team import team

logger = logging.getLogger(__name__)


def segment(
    inputs: str | Path | Sequence[str | Path], output: str | Path, *, progress: bool = False, **options: Any
) -> list[Outcome]:
    """Segments the liver in CTs and writes, for each, a folder `output/NAME/` and a row of `output/measures.csv`.

    Args:
        inputs: one or more of: an image file (NIfTI, NRRD, MetaImage), a DICOM file or folder, a zip of DICOM, a folder
            of any of these, a text file that lists them.
        output: the folder to write to; made if missing.
        progress: show a bar on stderr.
        **options: as of `ravnet segment`, such as `fast=True` or `height=170, weight=70`: see `Options`. With a number
            of `workers`, a script needs `if __name__ == "__main__":`, because the workers import it.

    Returns:
        one `Outcome` per study; a failed one more if the table cannot be written or the disk is full. A failing study
        does not stop the others; a full disk does.

    Raises:
        TypeError: an unknown option.
        ValueError: an implausible height, weight or body surface; a wrong shard, device, number of threads or workers,
            weights or output; Dask is missing or does not answer.
        ConnectionError: the Dask scheduler has gone.

    PyTorch's threads do not survive a fork: after this call, start processes by "spawn".
    """
    asked = Options(**options)
    body_surface_m2(asked.height, asked.weight, asked.bsa)
    if not isinstance(asked.workers, str):  # a cluster's devices are not known here
        check_device(asked.device)
    if asked.weights is not None:
        asked = replace(asked, weights=os.path.abspath(asked.weights))
    settings = Settings(Path(output).absolute(), asked, **software(asked.weights), started=time.time())
    outcomes: list[Outcome] = []
    with ExitStack() as stack:
        do = stack.enter_context(team(settings, asked.workers)) if asked.workers else Run(settings).do
        found = find([inputs] if isinstance(inputs, (str, Path)) else inputs, asked.series)
        scans = settled(stack, found.scans, settings)
        found = results.set_aside(Shard.parse(asked.shard).of(replace(found, scans=scans)))
        for line in found.aside:
            logger.info("set aside: %s", line)
        if found.aside:
            logger.warning("%d inputs that are no CT were set aside; --dry-run names them", len(found.aside))
        for source, line in found.refused:
            outcomes.append(Outcome(Path(source).name, source, "failed", line))
        bar = stack.enter_context(_bar(len(found.scans), progress))

        def end(outcome: Outcome) -> Any:
            outcomes.append(outcome)
            with suppress(OSError):  # stderr is closed
                bar.update()

        try:
            do(found.scans, end)
        except OutputFull as error:
            outcomes.append(Outcome(settings.output.name, str(settings.output), "failed", str(error)))
    tables = []
    try:
        results.write_table(settings.output)
    except OSError as error:  # the studies are reported all the same
        table = settings.output / results.TABLE
        tables = [Outcome(table.name, str(table), "failed", f"{table}: cannot be written: {error.strerror}.")]
    return [_there(settings.output, outcome) for outcome in outcomes] + tables


def settled(stack: ExitStack, scans: Sequence[Scan], settings: Settings) -> tuple[Scan, ...]:
    """The scans with the names of their results in the output."""
    salt = b""
    if hidden(scans, settings.options.anonymous):
        try:
            salt = stack.enter_context(salted(settings.output))
        except OSError as error:
            raise ValueError(f"{settings.output}: cannot be written to ({error.strerror}).") from error
    return settle(scans, settings.output, settings.options.anonymous, salt)


def _bar(total: int, progress: bool) -> tqdm:
    with suppress(OSError):
        return tqdm(total=total, unit="CT", disable=not progress)
    return tqdm(disable=True)


def _there(output: Path, outcome: Outcome) -> Outcome:
    """A study's outcome; failed if its results have been removed since."""
    folder = output / outcome.name
    if outcome.status == "failed" or (folder / results.MANIFEST).exists():
        return outcome
    return Outcome(outcome.name, outcome.source, "failed", f"{folder}: its results were removed during the run.")
