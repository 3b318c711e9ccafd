"""One line for everything that can be wrong with an input."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from ..datasets import IMAGES


class CTError(ValueError):
    """An input that is not a CT volume this bundle can segment; its text is one line that says what to do.

    Control characters, which file names and headers may hold, are taken out.
    """

    def __init__(self, text: str):
        super().__init__(one_line(text))


def one_line(text: str) -> str:
    """`text` without control characters, line ends and bytes that are not UTF-8."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", str(text).encode("utf-8", "backslashreplace").decode()).strip()


@contextmanager
def one_reason(path: Path, reason: str = f"truncated, or not {', '.join(IMAGES)} or DICOM") -> Iterator[None]:
    """Turns whatever a reader raises within into a `CTError` about `path`: `reason`, or the system's or memory's."""
    try:
        yield
    except CTError:
        raise
    except MemoryError as error:
        raise CTError(f"{path}: there is not enough memory to read it; use a machine with more.") from error
    except Exception as error:  # readers raise anything on a damaged file
        system = isinstance(error, OSError) and error.errno and error.strerror
        raise CTError(f"{path}: cannot be read: {system or reason}.") from error


def one_line_errors() -> None:
    """Makes an uncaught `CTError`, however deeply MONAI wrapped it, end the process with its one line (exit code 1)."""
    traceback_hook = sys.__excepthook__

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, CTError):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            traceback_hook(kind, error, trace)
        else:
            print(f"error: {cause}", file=sys.stderr)

    sys.excepthook = hook
    logging.getLogger("ignite.engine.engine").setLevel(logging.CRITICAL)  # it logs what the hook is about to say
