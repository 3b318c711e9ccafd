"""Work shared by independent processes: each claims a study by a lock file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .locks import lock

CHANCES = 1000  # tries, because another process may delete the empty folder between mkdir and open


class Claim:
    """An exclusive lock on `.NAME.lock` in a folder, which ends with its process, even by kill -9.

    It is the system's lock (flock): the next claim takes over a lock file that a kill left behind. Network file systems
    need flock (NFS since Linux 2.6.12). The library `filelock` would leave lock files and folders among the results.
    """

    def __init__(self, path: Path, descriptor: int, made: bool):
        self.path = path
        self.descriptor: int | None = descriptor
        self.made = made  # whether the claim made its folder

    @classmethod
    @contextmanager
    def alone(cls, folder: Path, name: str) -> Iterator[bool]:
        """Waits for the claim and holds it in a `with`; yields whether the folder was made for it."""
        claim = cls.take(folder, name, wait=True)
        assert claim  # because it waits
        try:
            yield claim.made
        finally:
            claim.release()

    @classmethod
    def take(cls, folder: Path, name: str, wait: bool = False) -> Claim | None:
        """Claims a name in a folder (made if missing). If another process has it, waits or returns `None`."""
        path = folder / f".{name}.lock"
        made = False
        while True:
            descriptor, new = _open(path)
            made |= new
            if not lock(descriptor, wait):
                os.close(descriptor)
                return None
            try:
                # the last owner removes the file before it unlocks: a lock on a removed file is void
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return cls(path, descriptor, made)
            except FileNotFoundError:
                pass
            os.close(descriptor)

    def release(self) -> None:
        """Unlocks; removes the lock file, and its folder if the claim made it and it is empty. May be called twice."""
        if self.descriptor is None:
            return
        try:
            self.path.unlink(missing_ok=True)
            os.close(self.descriptor)
        except PermissionError:  # Windows removes no open file
            os.close(self.descriptor)
            with suppress(OSError):  # another process has it
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
