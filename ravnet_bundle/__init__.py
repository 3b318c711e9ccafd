"""RA V-Net for liver segmentation in CT, as a MONAI bundle: `from ravnet_bundle import segment`."""

from __future__ import annotations

__all__ = ["segment"]


def __getattr__(name: str):
    """`segment` is imported when it is asked for: with it comes PyTorch, which the command line's help does without."""
    if name == "segment":
        from .scripts.batch.segment import segment

        return segment
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
