"""RA V-Net for liver segmentation in CT, as a MONAI bundle: `from ravnet_bundle import Segmenter, segment`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["Segmenter", "segment"]


def __getattr__(name: str) -> Any:
    """Each is imported when it is asked for: with it comes PyTorch, which the command line's help does without."""
    if name in __all__:
        return getattr(import_module(f".scripts.batch.{name.lower()}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
