"""The studies of one process: it reads the next, computes one and writes the last at the same time."""

import errno
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ..inference.provenance import peak_memory_gib, software
from ..reading import CTError, Scan, files, needs_itk, read
from ..reading.errors import one_line
from . import results
from .claims import Claim
from .interruption import INTERRUPTED
from .options import Outcome, Settings
from .pseudonyms import other_name
from .segmenter import Segmenter

logger = logging.getLogger(__name__)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no other study can be written either
LARGE = 2**28  # voxels; a larger CT is read, computed and written by itself, to save memory


class OutputFull(Exception):
    """The output cannot take any more results; the text is one line that says why."""


@dataclass
class _Study:
    """A study on its way through one process."""

    scan: Scan
    claim: Claim
    about: dict[str, Any]
    begun: float
    ct: Any = None  # Voxels, until they are no longer needed
    result: Any = None  # results.Result

    @property
    def name(self) -> str:
        return self.scan.name

    @property
    def large(self) -> bool:
        return self.ct is not None and self.ct.hu.size > LARGE


class Run:
    """Does the studies of one process; it reads the next and writes the last while the network works.

    PyTorch, MONAI and the network are loaded in a thread while the first CT is read.

    Raises:
        ValueError: the settings come from a process with another version or other weights.
    """

    def __init__(self, settings: Settings):
        here = software(settings.options.weights)
        if (here["version"], here["weights"]) != (settings.version, settings.weights):
            raise ValueError(
                f"a worker has version {here['version']} with weights {here['weights'][:10]}, the command has "
                f"{settings.version} with {settings.weights[:10]}: install the same everywhere."
            )
        self.settings, self.output = settings, settings.output
        asked = settings.options
        opened = partial(Segmenter, fast=asked.fast, weights=asked.weights, device=asked.device)
        self.loading: Future[Segmenter] = ThreadPoolExecutor(1).submit(opened)
        self.interrupted = threading.Event()
        self.claims: list[Claim] = []
        self.end: Callable[[Outcome], Any]

    def do(self, scans: Sequence[Scan], end: Callable[[Outcome], Any]) -> None:
        """Does each study that no other process does, and calls `end` with its outcome.

        After an interruption it releases its claims.

        Raises:
            OutputFull: the output cannot take any more results.
            ValueError: the weights are not this network's.
        """
        self.end = end
        self.interrupted.clear()
        try:
            self._do(self._loaded(scans))
        finally:
            for claim in reversed(self.claims):  # last the one that made the folder: it removes it if empty
                claim.release()
            self.claims.clear()

    def _do(self, loaded: Iterator[_Study]) -> None:
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            written: Future | None = None
            try:
                coming = reader.submit(next, loaded, None)
                self.segmenter = self.loading.result()
                if threads := self.settings.options.threads:
                    import torch

                    torch.set_num_threads(threads)
                writer.submit(results.prepare)
                while study := coming.result():
                    if INTERRUPTED.is_set():
                        raise KeyboardInterrupt
                    if not study.large:
                        coming = reader.submit(next, loaded, None)
                    if written and written.done():
                        written.result()  # raises if the output is full
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
                self.interrupted.set()  # so that the reader does not wait for other processes

    def _loaded(self, scans: Sequence[Scan]) -> Iterator[_Study]:
        """Claims and reads one study after the other; a study of another process is tried again until that one ends."""
        waiting = list(scans)
        while waiting and not self.interrupted.is_set():
            others = []
            for scan in waiting:
                try:
                    about = {**self.settings.about, "input": fingerprint(scan), "source": scan.identity}
                except (CTError, OSError) as error:
                    text = str(error) if isinstance(error, CTError) else f"{scan.source}: {error.strerror}"
                    self.end(Outcome(scan.name, str(scan.source), "failed", text))
                    continue
                try:
                    claim = Claim.take(self.output, scan.name)
                except OSError as error:
                    self.end(Outcome(scan.name, str(scan.source), "failed", str(self._unwritable(scan.name, error))))
                    continue
                if claim is None:
                    others.append(scan)
                    continue
                self.claims.append(claim)
                if results.owner(self.output / scan.name) not in (None, scan.identity):  # another input took the name
                    claim.release()
                    others.append(replace(scan, name=other_name(scan.name, scan)))
                    continue
                study = _Study(scan, claim, about, time.perf_counter())
                if self._kept(study):
                    claim.release()
                elif self._attempt(study, self._load):
                    yield study
            if [scan.name for scan in others] == [scan.name for scan in waiting]:
                self.interrupted.wait(0.5)
            waiting = others

    def _unwritable(self, name: str, error: OSError) -> CTError:
        """The error for results that cannot be written. Raises `OutputFull` if no study can be written."""
        reason = error.strerror or str(error)
        if error.errno in FULL:
            raise OutputFull(f"{self.output}: {reason}: the run ended here; free space, then use --resume.")
        return CTError(f"{self.output / name}: cannot be written: {reason}.")

    def _kept(self, study: _Study) -> bool:
        """Whether the study is complete: since the command began or, with `--resume`, before."""
        folder = self.output / study.name
        manifest = folder / results.MANIFEST
        if not manifest.exists() or not (
            self.settings.options.resume or manifest.stat().st_mtime >= self.settings.started
        ):
            return False
        wait([self.loading])  # see `_load`
        from ..writing import complete

        if not complete(manifest, **study.about):
            return False
        self._ended(study, "kept", results.read(folder))
        return True

    def _attempt(self, study: _Study, work: Callable[[_Study], None]) -> bool:
        """Does one part of a study; an error ends only this study."""
        try:
            work(study)
            return True
        except OutputFull:  # ends all; `do` releases the claims
            raise
        except Exception as error:
            logger.debug("%s failed", study.name, exc_info=True)
            self.end(Outcome(study.name, str(study.scan.source), "failed", _in_words(study.scan, error)))
            study.claim.release()
            return False

    def _load(self, study: _Study) -> None:
        if self.output / study.name in study.scan.files[0].absolute().parents:
            raise CTError(f"{study.scan.source}: its results would lie among its files: give another output folder.")
        if needs_itk(study.scan):
            wait([self.loading])  # MONAI imports ITK too: its circular imports must not run in two threads
        study.ct = read(study.scan)

    def _compute(self, study: _Study) -> None:
        options = self.settings.options
        examined = self.segmenter.examine(study.ct, options)
        if (options.seg or options.rtstruct) and study.scan.kind != "dicom":
            examined.notes.append("no DICOM output: the input is not a DICOM series")
        study.result = results.Result(study.scan, study.ct, examined)

    def _write(self, study: _Study) -> None:
        cost = {"run time": f"{time.perf_counter() - study.begun:.1f} s"}
        if (peak := peak_memory_gib()) is not None:
            cost["peak memory"] = f"{peak:.2f} GiB"
        folder = self.output / study.name
        try:
            results.write(folder, study.result, self.settings.options, study.about, cost)
        except OSError as error:
            if error.filename and str(error.filename) in map(str, study.scan.files):  # the input is gone
                raise
            raise self._unwritable(study.name, error) from error
        study.claim.release()
        self._ended(study, "done", results.read(folder))

    def _ended(self, study: _Study, status: str, measures: dict[str, Any]) -> None:
        reasons = tuple(measures["reasons"])
        source, volume = str(study.scan.source), measures["volume_ml"]
        self.end(Outcome(study.name, source, status, "", measures["verdict"], reasons, volume))


def _in_words(scan: Scan, error: Exception) -> str:
    """One line about the error that ended a study; MONAI wraps it in errors of its own."""
    import torch

    chain: list[BaseException] = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    for one in chain:
        if isinstance(one, CTError):
            return str(one)
        if isinstance(one, torch.OutOfMemoryError):
            return f"{scan.source}: not enough memory on the GPU; use --device cpu, or --fast."
        if isinstance(one, MemoryError) or "can't allocate memory" in str(one) or "not enough memory" in str(one):
            return f"{scan.source}: not enough memory to segment it; use a machine with more, or --fast."
    return f"{scan.source}: {one_line(error) or type(error).__name__}"


def fingerprint(scan: Scan) -> str:
    """Hash of the names, sizes and times of an input's files: it changes when the input changes.

    Raises:
        CTError, OSError: a file is missing.
    """
    held = files(scan)
    facts: list = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in held]
    facts += [file.name for file in scan.files]  # which of a zip's
    return hashlib.sha256(repr(facts).encode()).hexdigest()
