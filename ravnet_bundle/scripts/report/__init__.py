"""The preview picture and the HTML report of a mask."""

from .page import write_report
from .planes import View, view
from .preview import write_preview

__all__ = ["View", "view", "write_preview", "write_report"]
