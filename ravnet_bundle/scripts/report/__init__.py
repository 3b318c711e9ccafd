"""The preview picture and the HTML report of a mask."""

from .page import write_report
from .preview import write_preview

__all__ = ["write_preview", "write_report"]
