"""The pipeline as the options ask for it, and with it PyTorch and MONAI, imported here and nowhere before."""

from __future__ import annotations

import gc
import logging
import os
from typing import TYPE_CHECKING, Any

from .options import Options

if TYPE_CHECKING:
    from ..inference.pipeline import Pipeline

logger = logging.getLogger(__name__)


def opened(options: Options) -> Pipeline:
    """The pipeline, its network and its weights. Raises `ValueError` where the weights are not this network's."""
    # threads that wait for each other must sleep: counting instead takes four times as long beside other programs
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    collecting = gc.isenabled()
    gc.disable()  # a million objects come with the modules, to stay: to look for garbage among them takes a second
    try:
        from ..inference.pipeline import Pipeline
    finally:
        if collecting:
            gc.enable()
    overrides: dict[str, Any] = {"device": options.device} if options.device else {}
    if options.fast:
        overrides["pixel_size"] = "@fast_pixel_size"
    if options.weights is None:
        return Pipeline(**overrides)
    try:
        return Pipeline(**overrides, **{"checkpointloader#load_path": options.weights})
    except Exception as error:  # unpickling raises anything
        logger.debug("weights", exc_info=True)
        raise ValueError(f"{options.weights}: cannot be loaded into this network: give its weights.") from error
