"""Makes the pipeline from the options. PyTorch and MONAI are imported here, and nowhere before."""

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
# MONAI imports them; segmentation does not
UNUSED = ("ignite", "itk", "matplotlib", "scipy.optimize", "scipy.signal", "scipy.spatial", "skimage", "tensorboard")
own_process = False  # whether only the command uses this process, so that nothing else needs all of MONAI


def check_device(device: str | None) -> None:
    """Raises `ValueError` if this machine has no such device."""
    if device is not None:
        import torch

        try:
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device {device}: not on this machine ({str(error).splitlines()[0]}).") from error


def opened(options: Options) -> Pipeline:
    """The pipeline with its network and weights. Raises `ValueError` if the weights are of another network."""
    # waiting threads must sleep: active waiting takes four times as long beside other programs
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    overrides: dict[str, Any] = {"device": options.device} if options.device else {}
    if options.fast:
        overrides["pixel_size"] = "@fast_pixel_size"
    if options.weights is not None:
        overrides["checkpointloader#load_path"] = options.weights
    with _quickly():
        from ..inference.pipeline import Pipeline

        try:
            return Pipeline(**overrides)
        except Exception as error:  # unpickling raises anything
            if options.weights is None:
                raise
            logger.debug("weights", exc_info=True)
            raise ValueError(f"{options.weights}: cannot be loaded: give weights of this network.") from error


@contextmanager
def _quickly() -> Iterator[None]:
    """Halves the time to import MONAI, which imports every optional library that is installed, some at the first use.

    In the command's own process, libraries that segmentation does not use look as if they were not installed.
    """
    hidden = [name for name in UNUSED if name not in sys.modules] if own_process else []
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: Python cannot import it
    collecting = gc.isenabled()
    gc.disable()  # the modules bring a million lasting objects: looking for garbage among them takes a second
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
        if collecting:
            gc.enable()
