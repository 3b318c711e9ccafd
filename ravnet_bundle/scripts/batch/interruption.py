"""Ctrl-C and SIGTERM, from the command's first moment to its last."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = threading.Event()  # the exception alone may be lost, in a destructor or in a library
CODE, LINE = 130, "interrupted: what is complete stays, --resume does the rest"
_loading = threading.Event()


def listen() -> None:
    """From now on a signal sets `INTERRUPTED` and raises `KeyboardInterrupt` in the main thread."""
    INTERRUPTED.clear()
    for number in SIGNALS:
        signal.signal(number, _interrupt)


@contextmanager
def loading() -> Iterator[None]:
    """While libraries are imported, which an exception would leave half done, a signal ends the process at once.

    Nothing may have been begun that needs an end.
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
