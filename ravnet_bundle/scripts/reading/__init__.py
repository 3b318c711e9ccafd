"""A path -> one CT volume that has been checked, or one clear line that says what is wrong with it.

`find` says what inputs hold, `check_header` what headers alone tell of a scan, `read` reads it, from its `files`, and
`load` gives it as MONAI's tensor.
"""

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


def __getattr__(name: str):
    """Tensors are imported when they are asked for: with them come PyTorch and MONAI, which reading does without."""
    if name in ("LoadCTd", "load"):
        from . import tensor

        return getattr(tensor, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
