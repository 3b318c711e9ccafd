"""The pipeline as the options ask for it, and with it PyTorch and MONAI, imported here and nowhere before."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .options import Options

if TYPE_CHECKING:
    from ..inference.pipeline import Pipeline

logger = logging.getLogger(__name__)
UNUSED = ("ignite", "matplotlib", "scipy.signal", "tensorboard")  # by what segmenting needs of MONAI
own_process = False  # whether nothing else in this process can want MONAI whole: so it is in the command


def check_device(device: str | None) -> None:
    """Raises `ValueError` where there is no such device here."""
    if device is not None:
        import torch

        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device {device}: not here ({str(error).splitlines()[0]}).") from error


def opened(options: Options) -> Pipeline:
    """The pipeline, its network and its weights. Raises `ValueError` where the weights are not this network's."""
    # threads that wait for each other must sleep: counting instead takes four times as long beside other programs
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    with _quickly():
        from ..inference.pipeline import Pipeline
    overrides: dict[str, Any] = {"device": options.device} if options.device else {}
    if options.fast:
        overrides["pixel_size"] = "@fast_pixel_size"
    if options.weights is not None:
        overrides["checkpointloader#load_path"] = options.weights
    try:
        return Pipeline(**overrides)
    except Exception as error:  # unpickling raises anything
        if options.weights is None:
            raise
        logger.debug("weights", exc_info=True)
        raise ValueError(f"{options.weights}: cannot be loaded into this network: give its weights.") from error


@contextmanager
def _quickly() -> Iterator[None]:
    """While MONAI is imported. It takes along each optional library that is installed, which doubles the time.

    In a process of our own those that segmenting does not use look as if they were not installed.
    """
    hidden = [name for name in UNUSED if name not in sys.modules] if own_process else []
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: Python's mark for "not to be had"
    collecting = gc.isenabled()
    gc.disable()  # a million objects come with the modules, to stay: to look for garbage among them takes a second
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        if collecting:
            gc.enable()
