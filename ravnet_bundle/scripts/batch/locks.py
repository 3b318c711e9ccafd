"""The system's lock on an open file, which ends with its process: flock, or on Windows that on the first byte."""

from __future__ import annotations

import sys
import time

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(descriptor: int, wait: bool = False, shared: bool = False) -> bool:
    """Locks an open file, or changes its lock; whether that was done.

    Args:
        descriptor: of a file that is open for reading and writing.
        wait: until no other process's lock is in the way.
        shared: others may have such a lock, too. Windows has none: it is not taken there, and nothing is done.
    """
    if fcntl:
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
            return True
        except BlockingIOError:
            return False
    if sys.platform == "win32" and not shared:
        import msvcrt

        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
                return True
            except OSError:
                if not wait:
                    return False
                time.sleep(0.1)
    return True  # a system without locks: one process at a time


def shares() -> bool:
    """Whether this system has shared locks."""
    return fcntl is not None
