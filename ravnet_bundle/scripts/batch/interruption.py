"""Ctrl-C and SIGTERM, from the start of the command to its end."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = threading.Event()  # a destructor or a library may swallow the exception
CODE, LINE = 130, "interrupted: complete studies are kept, --resume does the rest"
_loading = threading.Event()


def listen() -> None:
    """Makes signals set `INTERRUPTED` and raise `KeyboardInterrupt` in the main thread."""
    INTERRUPTED.clear()
    for number in SIGNALS:
        signal.signal(number, _interrupt)


@contextmanager
def loading() -> Iterator[None]:
    """During imports a signal ends the process at once: an exception would leave modules half imported.

    Start nothing before that needs cleaning up.
    """
    _loading.set()
    try:
        yield
    finally:
        _loading.clear()


def _interrupt(*_: object) -> None:
    INTERRUPTED.set()
    if _loading.is_set():
        os.write(2, f"{LINE}\n".encode())
        os._exit(CODE)
    raise KeyboardInterrupt
