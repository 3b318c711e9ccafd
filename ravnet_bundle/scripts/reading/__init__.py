"""From a path to a checked CT volume, or to a clear error of one line.

`find` lists the scans of inputs. `check_header` checks a scan's headers, `read` reads it, `load` reads it as MONAI's
tensor, `files` lists its files.
"""

from typing import Any

from .errors import ConfigError, CTError, one_line_errors
from .find import find, find_scans
from .keys import refuse_unread_keys
from .memory import in_memory, is_simpleitk
from .scan import Found, Scan
from .voxels import Voxels, check_header, check_series, files, needs_itk, read

__all__ = [
    "CTError", "ConfigError", "Found", "LoadCTd", "Scan", "Voxels", "check_header", "check_series", "files", "find",
    "find_scans", "in_memory", "is_simpleitk", "load", "needs_itk", "one_line_errors", "read", "refuse_unread_keys",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports tensors on demand: they need PyTorch and MONAI, reading does not."""
    if name in ("LoadCTd", "load"):
        from . import tensor

        return getattr(tensor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
