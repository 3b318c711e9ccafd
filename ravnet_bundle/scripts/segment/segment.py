"""`segment`: what is asked for, found, done and tabled."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .. import results
from ..measures import body_surface_m2
from ..provenance import software
from ..reading import find
from ..shards import Shard
from .settings import Outcome, Settings
from .studies import Run
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
        anonymous: keep names, ids, dates and UIDs out of reports and of the names of folders.
        resume: keep the studies whose results are complete, unharmed, and made of the same input with the same weights
            and settings.
        fast: larger pixels, the config's `fast_pixel_size`.
        device: of the network, such as "cpu" or "cuda"; by default the GPU if there is one.
        threads: of PyTorch on the CPU, in each worker.
        shard: "I/N": do part I, which counts from 0, of N parts of the studies.
        workers: how many processes of this machine do the studies, or the address of the Dask scheduler whose workers
            do them; by default this process. A script that gives a number needs `if __name__ == "__main__":`, as its
            processes import it.
        progress: show a bar on stderr.

    Returns:
        one `Outcome` per study, and a failed one of the table where that cannot be written. A study that fails does not
        stop the others.

    Raises:
        ValueError: a height, weight or surface that is no patient's; no such shard; no Dask, or no answer from it.
        ConnectionError: the Dask scheduler has gone.
    """
    body_surface_m2(height, weight, bsa)
    cut = Shard.parse(shard)
    settings = Settings(
        Path(output).absolute(), **software(), started=time.time(), seg=seg, rtstruct=rtstruct,
        probabilities=probabilities, native=native, height_cm=height, weight_kg=weight, bsa_m2=bsa,
        anonymous=anonymous, resume=resume, fast=fast, device=device, threads=threads,
    )  # fmt: skip
    outcomes: list[Outcome] = []
    with ExitStack() as stack:
        do = stack.enter_context(team(settings, workers)) if workers else Run(settings).do
        found = cut.of(find([inputs] if isinstance(inputs, (str, Path)) else inputs, series))
        found = results.set_aside(found)
        for line in found.aside:
            logger.info("set aside: %s", line)
        for source, line in found.refused:
            outcomes.append(Outcome(Path(source).name, source, "failed", line))
        bar = stack.enter_context(tqdm(total=len(found.scans), unit="CT", disable=not progress))

        def end(outcome: Outcome) -> Any:
            outcomes.append(outcome)
            bar.update()

        do(found.scans, end)
    table = settings.output / results.TABLE
    try:
        results.write_table(settings.output)
    except OSError as error:  # the studies are there, and are told
        outcomes.append(Outcome(table.name, str(table), "failed", f"{table}: cannot be written: {error.strerror}."))
    return outcomes
