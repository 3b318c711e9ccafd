"""Gives studies to the workers of a Dask cluster, on this machine or on many."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from ..reading import Scan
from .options import Outcome, Settings
from .studies import OutputFull, Run

if TYPE_CHECKING:
    from distributed import Client, Future, LocalCluster

Do = Callable[[Sequence[Scan], Callable[[Outcome], Any]], None]
GONE = "the Dask scheduler is gone; complete studies are kept, --resume does the rest."
CONNECT = 30  # seconds to find the scheduler
LOOK = 1  # seconds between two looks for new workers
# in each worker: log as little as this process does, and leave Ctrl-C, which the terminal sends to all, to this process
PRELOAD = "import logging, signal; logging.basicConfig(level={}); signal.signal(signal.SIGINT, signal.SIG_IGN)"
BUSY = threading.Lock()  # a worker does one study at a time, whatever its number of threads


@contextmanager
def team(settings: Settings, workers: int | str) -> Iterator[Do]:
    """A function like `Run.do` that does studies on workers, which end with the context.

    Args:
        settings: of the studies.
        workers: a number of processes to start on this machine, which share its cores, or the address of a Dask
            scheduler (tcp://HOST:8786). Its workers see the same files under the same paths and have the same
            version of this package.

    Raises:
        ValueError: Dask is not installed, or no scheduler answers.
    """
    try:
        import distributed
    except ImportError as error:
        raise ValueError("workers need Dask: pip install 'ravnet-bundle[dask]'.") from error
    level = logging.root.level
    for name in ("distributed", "distributed.client"):  # Dask gives both a level of their own
        logging.getLogger(name).setLevel(level if level < logging.WARNING else logging.CRITICAL)
    if isinstance(workers, int):
        from dask.system import cpu_count  # only the cores that this process may use

        threads = settings.options.threads or max(1, cpu_count() // workers)
        settings = replace(settings, options=replace(settings.options, threads=threads))
    with ExitStack() as stack:
        try:
            place = stack.enter_context(_local(workers)) if isinstance(workers, int) else workers
            client = stack.enter_context(distributed.Client(place, timeout=CONNECT))
        except (OSError, RuntimeError, ValueError, distributed.TimeoutError) as error:
            raise ValueError(f"workers {workers}: no Dask cluster: {error}") from error
        yield partial(_do, client, settings)


@contextmanager
def _local(number: int) -> Iterator[LocalCluster]:
    """A cluster on this machine, closed to other users, without a memory limit of its own."""
    import dask
    from distributed import LocalCluster
    from distributed.security import Security

    with (
        # else Dask sets OMP_NUM_THREADS and others to 1 in this process, for good
        dask.config.set({"distributed.nanny.pre-spawn-environ": {}}),
        tempfile.TemporaryDirectory(prefix="ravnet-") as folder,
        LocalCluster(
            n_workers=number,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address="127.0.0.1:0",  # Dask always starts this HTTP server
            local_directory=folder,
            security=Security.temporary(),
            silence_logs=logging.CRITICAL,
            preload=PRELOAD.format(logging.root.level),
        ) as cluster,
    ):
        yield cluster


def _do(client: Client, settings: Settings, scans: Sequence[Scan], end: Callable[[Outcome], Any]) -> None:
    """Gives each worker thread one study: if a worker dies, only that study counts a failure."""
    from distributed import TimeoutError, wait
    from distributed.comm import CommClosedError

    waiting = list(reversed(scans))
    going: dict[Future, Scan] = {}
    try:
        while waiting or going:
            if client.status != "running":
                raise ConnectionError(GONE)
            for _ in range(min(len(waiting), sum(client.nthreads().values()) - len(going))):
                scan = waiting.pop()
                going[client.submit(_study, settings, scan, pure=False)] = scan
            if not going:  # no worker yet
                time.sleep(LOOK)
                continue
            try:
                done = wait(list(going), timeout=LOOK, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                continue
            for future in done:
                end(_outcome(future, going.pop(future)))
    except (KeyboardInterrupt, OutputFull):
        wait(list(going))  # a worker's thread cannot be interrupted
        raise
    except CommClosedError as error:
        raise ConnectionError(GONE) from error


def _outcome(future: Future, scan: Scan) -> Outcome:
    from distributed import KilledWorker

    try:
        return future.result()
    except OutputFull:
        raise
    except KilledWorker as error:
        text = f"{error.allowed_failures + 1} workers died on it, the last at {error.last_worker.address}"
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
    return Outcome(scan.name, str(scan.source), "failed", f"{scan.source}: {text}")


def _study(settings: Settings, scan: Scan) -> Outcome:
    """Does one study, on a worker."""
    outcomes: list[Outcome] = []
    with BUSY:
        _run(settings).do([scan], outcomes.append)
    return outcomes[0]


@lru_cache(maxsize=1)
def _run(settings: Settings) -> Run:
    """Loads the network once per worker."""
    return Run(settings)
