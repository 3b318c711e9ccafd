"""Studies in, results out: one or many, resumable, shared between processes."""

from __future__ import annotations

import hashlib
import logging
import resource
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from tqdm import tqdm

from . import results
from .anonymity import public_name
from .claims import Claim
from .measures import body_surface_m2, measure
from .pipeline import Pipeline
from .provenance import software
from .quality import judge, observe
from .reading import CTError, Scan, find, load
from .writing import complete

logger = logging.getLogger(__name__)
INTERRUPTED = threading.Event()  # set by a signal's handler: its exception alone may be lost in a destructor
LARGE = 2**28  # voxels; a larger CT has the memory to itself: nothing is read ahead or written behind


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
        threads: of PyTorch on the CPU.
        progress: show a bar on stderr.

    Returns:
        one `Outcome` per study. A study that fails does not stop the others.

    Raises:
        ValueError: a height, weight or surface that is no patient's.
        OSError: `measures.csv` cannot be written.
    """
    body_surface_m2(height, weight, bsa)
    if threads:
        torch.set_num_threads(threads)
    wanted = {"seg": seg, "rtstruct": rtstruct, "probabilities": probabilities, "native": native}
    wanted |= {"height_cm": height, "weight_kg": weight, "bsa_m2": bsa}
    run = _Run(Path(output).absolute(), wanted, anonymous, resume, fast, device)
    with tempfile.TemporaryDirectory(prefix="ravnet-") as unpack:
        found = find([inputs] if isinstance(inputs, (str, Path)) else inputs, Path(unpack), series)
        for line in found.aside:
            logger.info("set aside: %s", line)
        for source, line in found.refused:
            if not results.is_result(Path(source)):
                run.end(Outcome(Path(source).name, source, "failed", line))
        scans = [scan for scan in found.scans if not results.is_result(scan.source)]
        with tqdm(total=len(scans), unit="CT", disable=not progress) as bar:
            run.progress = bar.update
            run.do(scans)
    results.write_table(run.output)
    return run.outcomes


@dataclass
class _Study:
    """A study on its way through one process."""

    name: str
    scan: Scan
    claim: Claim
    about: dict[str, Any]
    begun: float
    ct: MetaTensor | None = None
    result: results.Result | None = None

    @property
    def large(self) -> bool:
        return self.ct is not None and self.ct.numel() > LARGE


class _Run:
    """The studies of one process: it reads the next one and writes the last one while the network is busy."""

    def __init__(
        self, output: Path, wanted: dict[str, Any], anonymous: bool, resume: bool, fast: bool, device: str | None
    ):
        self.output, self.wanted, self.anonymous, self.resume = output, wanted, anonymous, resume
        overrides = ({"device": device} if device else {}) | ({"pixel_size": "@fast_pixel_size"} if fast else {})
        self.pipeline = Pipeline(**overrides)
        self.about = {**software(), "fast": fast, "anonymous": anonymous, **wanted}
        self.started = time.time()
        self.interrupted = threading.Event()
        self.outcomes: list[Outcome] = []
        self.claims: list[Claim] = []
        self.progress: Callable[[], Any] = lambda: None

    def end(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.progress()

    def do(self, scans: Sequence[Scan]) -> None:
        """Does each study that no other process does; after an interruption, lets go of what it had claimed."""
        try:
            self._do(self._loaded(scans))
        finally:
            for claim in self.claims:
                claim.release()

    def _do(self, loaded: Iterator[_Study]) -> None:
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            written: Future | None = None
            try:
                coming = reader.submit(next, loaded, None)
                while study := coming.result():
                    if INTERRUPTED.is_set():
                        raise KeyboardInterrupt
                    if not study.large:
                        coming = reader.submit(next, loaded, None)
                    computed = self._attempt(study, self._compute)
                    if written:
                        written.result()
                    written = writer.submit(self._attempt, study, self._write) if computed else None
                    if study.large:
                        if written:
                            written.result()
                        study.ct = study.result = None
                        coming = reader.submit(next, loaded, None)
                if written:
                    written.result()
            finally:
                self.interrupted.set()  # after an interruption the reader need not wait for other processes

    def _loaded(self, scans: Sequence[Scan]) -> Iterator[_Study]:
        """Claims and reads one study after the other; those that other processes are at come again until these end."""
        waiting = list(scans)
        while waiting and not self.interrupted.is_set():
            others = []
            for scan in waiting:
                try:
                    name = public_name(scan) if self.anonymous else scan.name
                    about = {**self.about, "input": fingerprint(scan)}
                    claim = Claim.take(self.output, name)
                except OSError as error:
                    self.end(Outcome(scan.name, str(scan.source), "failed", f"{scan.source}: {error.strerror}"))
                    continue
                if claim is None:
                    others.append(scan)
                    continue
                self.claims.append(claim)
                study = _Study(name, scan, claim, about, time.perf_counter())
                if self._kept(study):
                    claim.release()
                elif self._attempt(study, self._load):
                    yield study
            if len(others) == len(waiting):
                self.interrupted.wait(0.5)
            waiting = others

    def _kept(self, study: _Study) -> bool:
        """Whether the study's results are there: from before, if asked to resume, or since this process began."""
        folder = self.output / study.name
        manifest = folder / results.MANIFEST
        if not manifest.exists() or not (self.resume or manifest.stat().st_mtime >= self.started):
            return False
        if not complete(manifest, **study.about):
            return False
        self._ended(study, "kept", results.read(folder))
        return True

    def _attempt(self, study: _Study, work: Callable[[_Study], None]) -> bool:
        """Does one part of a study; an error ends this study alone."""
        try:
            work(study)
            return True
        except Exception as error:
            logger.debug("%s failed", study.name, exc_info=True)
            text = " ".join(str(error).split()) or type(error).__name__
            text = text if isinstance(error, CTError) else f"{study.scan.source}: {text}"
            self.end(Outcome(study.name, str(study.scan.source), "failed", text))
            study.claim.release()
            return False
        except BaseException:
            study.claim.release()
            raise

    def _load(self, study: _Study) -> None:
        if self.output / study.name in study.scan.files[0].absolute().parents:
            raise CTError(f"{study.scan.source}: its results would lie among its files: give another output folder.")
        study.ct = load(study.scan)

    def _compute(self, study: _Study) -> None:
        ct, wanted = study.ct, self.wanted
        found = self.pipeline(ct)
        hu, affine = ct.numpy(), ct.affine.numpy()
        body = {key: wanted[key] for key in ("native", "height_cm", "weight_kg", "bsa_m2")}
        measures = measure(hu, found.mask, affine, **body)
        seen = observe(measures, affine, found.image, found.probability, found.affine, self.pipeline.predict)
        notes = [note for note in ct.meta["notes"].split("; ") if note]
        if (wanted["seg"] or wanted["rtstruct"]) and study.scan.kind != "dicom":
            notes.append("no DICOM output: the input is no DICOM series")
        own = np.asarray(ct.meta["original_affine"])
        study.result = results.Result(
            study.name, study.scan, hu, affine, own, found, measures | seen, judge(seen), notes
        )

    def _write(self, study: _Study) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        cost = {"run time": f"{time.perf_counter() - study.begun:.1f} s", "peak memory": f"{peak:.2f} GB"}
        folder = self.output / study.name
        results.write(folder, study.result, self.wanted, study.about, cost)
        study.claim.release()
        self._ended(study, "done", results.read(folder))

    def _ended(self, study: _Study, status: str, measures: dict[str, Any]) -> None:
        reasons = tuple(measures["reasons"])
        source, volume = str(study.scan.source), measures["volume_ml"]
        self.end(Outcome(study.name, source, status, "", measures["verdict"], reasons, volume))


def fingerprint(scan: Scan) -> str:
    """Tells one input from another, and from the same one changed, by the names, sizes and times of its files."""
    facts = [(file.name, file.stat().st_size) for file in scan.files]
    # what was unpacked from a zip is as old as this process: the zip's own time counts
    given = [scan.source] if scan.source.is_file() else scan.files
    facts += [(file.name, file.stat().st_mtime_ns) for file in given]
    return hashlib.sha256(repr(facts).encode()).hexdigest()
