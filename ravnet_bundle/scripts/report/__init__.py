"""What a person looks at: a mask on its CT as one picture, and as one HTML page with the numbers and the verdict."""

from __future__ import annotations

from .page import write_report
from .preview import picture, write_preview

__all__ = ["picture", "write_preview", "write_report"]
