"""A training's progress, for the bar, the log and TensorBoard."""

from __future__ import annotations

import time

import ignite.distributed as idist
from ignite.engine import Engine, Events
from ignite.handlers import ProgressBar
from monai.handlers import from_engine


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
