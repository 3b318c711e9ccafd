"""The preview picture and the HTML report of a mask."""

from .page import write_report
from .preview import picture, write_preview

__all__ = ["picture", "write_preview", "write_report"]
