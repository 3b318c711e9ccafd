"""A path -> one CT volume that has been checked, or one clear line that says what is wrong with it.

`find` says what inputs hold, `check_header` what headers alone tell of a scan, `load` reads it, from its `files`.
"""

from .errors import CTError, one_line_errors
from .find import find, find_scans
from .load import LoadCTd, check_header, check_series, files, load
from .scan import Found, Scan

__all__ = [
    "CTError", "Found", "LoadCTd", "Scan", "check_header", "check_series", "files", "find", "find_scans", "load",
    "one_line_errors",
]  # fmt: skip
