"""The system's lock on an open file, which ends with its process: flock, or on Windows a lock on the first byte."""

import sys
import time

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def lock(descriptor: int, wait: bool = False, shared: bool = False) -> bool:
    """Locks an open file, or changes its lock; returns whether it did.

    Args:
        descriptor: of a file that is open for reading and writing.
        wait: wait for other processes' locks.
        shared: a lock that several processes can hold. Windows has none: nothing is done there.
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
