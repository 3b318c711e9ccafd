"""Studies handed out to the workers of a Dask cluster, of this machine or of many."""

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
GONE = "the Dask scheduler is gone: what is complete stays, --resume does the rest."
CONNECT = 30  # seconds to find the scheduler
LOOK = 1  # seconds between two looks for workers that have joined
# in each process: it is as quiet as this one, and leaves an interruption, which the terminal sends to all, to this one
PRELOAD = "import logging, signal; logging.basicConfig(level={}); signal.signal(signal.SIGINT, signal.SIG_IGN)"
BUSY = threading.Lock()  # a worker does one study at a time, whatever its number of threads


@contextmanager
def team(settings: Settings, workers: int | str) -> Iterator[Do]:
    """A function that does studies like `Run.do`, but on workers; those are let go in the end.

    Args:
        settings: of the studies.
        workers: a number of processes to start on this machine, which share its cores, or the address of a Dask
            scheduler (tcp://HOST:8786), whose workers see the same files under the same paths and have the same
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
        from dask.system import cpu_count  # those that this process may use

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
    """A cluster of this machine, closed to its other users, without a limit of memory but the machine's own."""
    import dask
    from distributed import LocalCluster
    from distributed.security import Security

    with (
        # else Dask sets OMP_NUM_THREADS and its like to 1 in this process, for good, so that the workers inherit them
        dask.config.set({"distributed.nanny.pre-spawn-environ": {}}),
        tempfile.TemporaryDirectory(prefix="ravnet-") as folder,
        LocalCluster(
            n_workers=number,
            threads_per_worker=1,
            memory_limit=0,
            dashboard_address="127.0.0.1:0",  # its HTTP server, which it wants at any rate
            local_directory=folder,
            security=Security.temporary(),
            silence_logs=logging.CRITICAL,
            preload=PRELOAD.format(logging.root.level),
        ) as cluster,
    ):
        yield cluster


def _do(client: Client, settings: Settings, scans: Sequence[Scan], end: Callable[[Outcome], Any]) -> None:
    """Hands out one study a worker thread: where a worker dies, no study but the one it was at is held against it."""
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
            if not going:  # no worker there yet
                time.sleep(LOOK)
                continue
            try:
                done = wait(list(going), timeout=LOOK, return_when="FIRST_COMPLETED").done
            except TimeoutError:
                continue
            for future in done:
                end(_outcome(future, going.pop(future)))
    except (KeyboardInterrupt, OutputFull):
        wait(list(going))  # what a worker's thread has begun cannot be interrupted
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
        text = f"{error.allowed_failures + 1} workers died of it, the last at {error.last_worker.address}"
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
    return Outcome(scan.name, str(scan.source), "failed", f"{scan.source}: {text}")


def _study(settings: Settings, scan: Scan) -> Outcome:
    """What a worker does."""
    outcomes: list[Outcome] = []
    with BUSY:
        _run(settings).do([scan], outcomes.append)
    return outcomes[0]


@lru_cache(maxsize=1)
def _run(settings: Settings) -> Run:
    """The network is loaded once a worker."""
    return Run(settings)
