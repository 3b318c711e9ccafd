"""Errors about an input: one line each."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from ..files import IMAGES, DataError

EXTRAS = {"tensorboard": "train"}  # a package that only one command needs -> its extra


class CTError(ValueError):
    """An input that is no CT volume or cannot be segmented. Its text is one line that says what to do.

    Control characters from file names and headers are removed.
    """

    def __init__(self, text: str):
        super().__init__(one_line(text))


class ConfigError(ValueError):
    """A config that cannot be meant; its text is one line that says what to do."""


def one_line(text: object) -> str:
    """`text` without control characters, line ends and bytes that are not UTF-8."""
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", str(text).encode("utf-8", "backslashreplace").decode()).strip()


@contextmanager
def one_reason(path: object, reason: str = f"truncated, or not {', '.join(IMAGES)} or DICOM") -> Iterator[None]:
    """Turns any exception of a reader into a `CTError` about `path`, with `reason` or the system's own reason."""
    try:
        yield
    except CTError:
        raise
    except MemoryError as error:
        raise CTError(f"{path}: not enough memory to read it; use a machine with more.") from error
    except Exception as error:  # readers raise anything on a damaged file
        system = isinstance(error, OSError) and error.errno and error.strerror
        raise CTError(f"{path}: cannot be read: {system or reason}.") from error


def one_line_errors() -> None:
    """Ends the process with one line and exit code 1 at an uncaught error of ours, also if MONAI wrapped it.

    So does a missing package of `EXTRAS`. MONAI's and Ignite's own log records of this error, with traceback, are
    dropped.
    """
    from monai.apps import get_logger

    traceback_hook = sys.__excepthook__

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if (cause := _told(error)) is None:
            traceback_hook(kind, error, trace)
        else:
            print(f"error: {cause}", file=sys.stderr)

    sys.excepthook = hook
    stats = get_logger("monai.handlers.StatsHandler")  # it may have a handler of its own
    for place in (stats, *logging.getLogger().handlers):
        place.addFilter(_is_news)


def _told(error: object) -> str | None:
    """The text of our own error in a chain of causes, or of a missing extra; else `None`."""
    while isinstance(error, BaseException):
        if isinstance(error, (CTError, DataError, ConfigError)):
            return str(error)
        if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
            return f"{error.name} is not installed: pip install 'ravnet-bundle[{EXTRAS[error.name]}]'."
        error = error.__cause__ or error.__context__
    return None


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a log record tells something that the hook will not print."""
    return record.levelno < logging.ERROR or _told(sys.exc_info()[1]) is None
