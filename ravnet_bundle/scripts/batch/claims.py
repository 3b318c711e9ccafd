"""Work shared between processes that know nothing of each other: each piece is claimed by a lock file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .locks import lock

CHANCES = 1000  # to make a lock file in a folder that other processes, having nothing in it, may be removing


class Claim:
    """An exclusive lock on `.NAME.lock` in a folder, which ends with its process, even by kill -9.

    The lock (flock) is the system's: nothing goes stale, and a lock file that a kill left behind is taken over by the
    next claim. On network file systems it works where these support flock (NFS since Linux 2.6.12). The library
    `filelock` would leave a lock file for each study among the results, and the folder that it made.
    """

    def __init__(self, path: Path, descriptor: int, made: bool):
        self.path = path
        self.descriptor: int | None = descriptor
        self.made = made  # its folder, which is otherwise somebody's, with an owner and rights of its own

    @classmethod
    @contextmanager
    def alone(cls, folder: Path, name: str) -> Iterator[bool]:
        """Waits for the claim and holds it within a `with`; yields whether the folder was made for it."""
        claim = cls.take(folder, name, wait=True)
        assert claim  # as it waits
        try:
            yield claim.made
        finally:
            claim.release()

    @classmethod
    def take(cls, folder: Path, name: str, wait: bool = False) -> Claim | None:
        """Claims a name in a folder, which is made if need be; where another process has it, waits or gives `None`."""
        path = folder / f".{name}.lock"
        made = False
        while True:
            descriptor, new = _open(path)
            made |= new
            if not lock(descriptor, wait):
                os.close(descriptor)
                return None
            try:
                # who had it has removed the file before letting go: a lock on a removed file is none
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return cls(path, descriptor, made)
            except FileNotFoundError:
                pass
            os.close(descriptor)

    def release(self) -> None:
        """Removes the lock file, its folder too if it made that and it is empty, and lets go; once is enough."""
        if self.descriptor is None:
            return
        try:
            self.path.unlink(missing_ok=True)
            os.close(self.descriptor)
        except PermissionError:  # Windows removes no open file
            os.close(self.descriptor)
            with suppress(OSError):  # another has it
                self.path.unlink()
        self.descriptor = None
        if self.made:
            with suppress(OSError):  # it holds results, or another claim
                self.path.parent.rmdir()


def _open(path: Path) -> tuple[int, bool]:
    for _ in range(CHANCES):
        with suppress(FileNotFoundError):
            return _opened(path)
    return _opened(path)


def _opened(path: Path) -> tuple[int, bool]:
    """A descriptor, and whether the folder was made for it."""
    try:
        path.parent.mkdir(parents=True)
        made = True
    except FileExistsError:
        made = False
    return os.open(path, os.O_CREAT | os.O_RDWR, 0o644), made
