"""A training's progress: coarse slices first; the bar, the log and TensorBoard."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.handlers import from_engine

logger = logging.getLogger(__name__)


class CoarseFirst:
    """Makes pixels `factor` times as large in the first epochs of a training that starts from random weights.

    Four coarse slices take the time of a fine one: the network sees more slices in the same time (progressive resizing,
    as in EfficientNetV2, Tan and Le 2021). A training that starts from trained weights has no coarse epochs.

    Args:
        network: it counts as trained if a batch normalisation has seen batches. So `Resume` comes after this handler.
        epochs: number of coarse epochs.
        changed: objects with an attribute `coarse` to set, such as `PrepareSlices` and `AxialInferer`.
        factor: of the pixels' size.
    """

    def __init__(self, network: torch.nn.Module, epochs: int, changed: Sequence[Any], factor: int = 2):
        self.network, self.epochs, self.changed, self.factor = network, epochs, changed, factor

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.begin)
        engine.add_event_handler(Events.EPOCH_STARTED, self.set)

    def begin(self, engine: Engine) -> None:
        seen = (int(value) for name, value in self.network.named_buffers() if name.endswith("num_batches_tracked"))
        self.coarse_epochs = 0 if any(seen) else self.epochs

    def set(self, engine: Engine) -> None:
        coarse = self.factor if engine.state.epoch <= self.coarse_epochs else 1
        if engine.state.epoch == self.coarse_epochs + 1 and self.coarse_epochs:
            logger.info("epoch %d: from here on fine pixels", engine.state.epoch)
        for thing in self.changed:
            thing.coarse = coarse


class Progress:
    """A training's progress in the engine's state, and on rank 0 in a bar.

    `engine.state.slices` counts the slices seen, also before a resumption; `learning_rate` is the optimizer's;
    `hours_left` is estimated from the steps since the start or resumption, validations included.

    Args:
        slices: in an epoch, of all ranks.
    """

    def __init__(self, slices: int):
        self.slices = slices

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.begin)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.look)
        if idist.get_rank() == 0:
            ProgressBar(desc="training").attach(engine, output_transform=lambda output: self.text(engine))

    def begin(self, engine: Engine) -> None:
        self.start, self.steps = time.perf_counter(), 0

    def look(self, engine: Engine) -> None:
        state = engine.state
        self.steps += 1
        left = state.max_epochs * state.epoch_length - state.iteration
        state.hours_left = left * (time.perf_counter() - self.start) / self.steps / 3600
        state.slices = state.iteration * self.slices // state.epoch_length
        state.learning_rate = engine.optimizer.param_groups[0]["lr"]

    def text(self, engine: Engine) -> dict[str, str]:
        state = engine.state
        return {
            "loss": f"{float(from_engine('loss', first=True)(state.output)):.4f}",
            "rate": f"{state.learning_rate:.2g}",
            "slices": f"{state.slices} of {state.max_epochs * self.slices}",
            "hours left": f"{state.hours_left:.2f}",
        }
