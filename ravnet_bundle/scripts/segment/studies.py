"""The studies that one process does, one after the other: it reads, computes and writes at once."""

from __future__ import annotations

import hashlib
import logging
import resource
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from .. import results
from ..anonymity import public_name
from ..claims import Claim
from ..measures import measure
from ..pipeline import Pipeline
from ..provenance import software
from ..quality import judge, observe
from ..reading import CTError, Scan, files, load
from ..writing import complete
from .settings import Outcome, Settings

logger = logging.getLogger(__name__)
INTERRUPTED = threading.Event()  # set by a signal's handler: its exception alone may be lost in a destructor
LARGE = 2**28  # voxels; a larger CT has the memory to itself: nothing is read ahead or written behind


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


class Run:
    """The studies of one process: it reads the next one and writes the last one while the network is busy.

    Raises:
        ValueError: the settings come from a process with another version or other weights.
    """

    def __init__(self, settings: Settings):
        here = software()
        if (here["version"], here["weights"]) != (settings.version, settings.weights):
            raise ValueError(
                f"a worker has version {here['version']} with weights {here['weights'][:10]}, the command has "
                f"{settings.version} with {settings.weights[:10]}: install the same everywhere."
            )
        if settings.threads:
            torch.set_num_threads(settings.threads)
        self.settings, self.output = settings, settings.output
        overrides = {"device": settings.device} if settings.device else {}
        self.pipeline = Pipeline(**overrides | ({"pixel_size": "@fast_pixel_size"} if settings.fast else {}))
        self.interrupted = threading.Event()
        self.claims: list[Claim] = []
        self.end: Callable[[Outcome], Any]

    def do(self, scans: Sequence[Scan], end: Callable[[Outcome], Any]) -> None:
        """Does each study that no other process does, and tells `end` how it ended.

        After an interruption, it lets go of what it had claimed.
        """
        self.end = end
        self.interrupted.clear()
        try:
            self._do(self._loaded(scans))
        finally:
            for claim in self.claims:
                claim.release()
            self.claims.clear()

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
                    name = public_name(scan) if self.settings.anonymous else scan.name
                    about = {**self.settings.about, "input": fingerprint(scan)}
                    claim = Claim.take(self.output, name)
                except (CTError, OSError) as error:
                    text = str(error) if isinstance(error, CTError) else f"{scan.source}: {error.strerror}"
                    self.end(Outcome(scan.name, str(scan.source), "failed", text))
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
        """Whether the study's results are there: from before, if asked to resume, or since the command began."""
        folder = self.output / study.name
        manifest = folder / results.MANIFEST
        if not manifest.exists() or not (self.settings.resume or manifest.stat().st_mtime >= self.settings.started):
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
        ct, wanted = study.ct, self.settings.wanted
        found = self.pipeline(ct)
        hu, affine = ct.numpy(), ct.affine.numpy()
        body = {key: wanted[key] for key in ("native", "height_cm", "weight_kg", "bsa_m2")}
        measures = measure(hu, found.mask, affine, **body)
        seen = observe(measures, affine, found.image, found.probability, found.affine, self.pipeline.predict)
        notes, doubts = ([text for text in ct.meta[key].split("; ") if text] for key in ("notes", "doubts"))
        if (wanted["seg"] or wanted["rtstruct"]) and study.scan.kind != "dicom":
            notes.append("no DICOM output: the input is no DICOM series")
        own = np.asarray(ct.meta["original_affine"])
        study.result = results.Result(
            study.name, study.scan, hu, affine, own, found, measures | seen, judge(seen, doubts), notes
        )

    def _write(self, study: _Study) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        cost = {"run time": f"{time.perf_counter() - study.begun:.1f} s", "peak memory": f"{peak:.2f} GB"}
        folder = self.output / study.name
        results.write(folder, study.result, self.settings.wanted, study.about, cost)
        study.claim.release()
        self._ended(study, "done", results.read(folder))

    def _ended(self, study: _Study, status: str, measures: dict[str, Any]) -> None:
        reasons = tuple(measures["reasons"])
        source, volume = str(study.scan.source), measures["volume_ml"]
        self.end(Outcome(study.name, source, status, "", measures["verdict"], reasons, volume))


def fingerprint(scan: Scan) -> str:
    """Tells one input from another, and from the same one changed, by the names, sizes and times of its files.

    Raises:
        CTError, OSError: a file that is not there.
    """
    held = files(scan)
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in held]
    facts += [file.name for file in scan.files]  # which of a zip's
    return hashlib.sha256(repr(facts).encode()).hexdigest()
