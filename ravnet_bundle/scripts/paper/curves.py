"""A training's curves, from the TensorBoard files that train.json writes."""

from __future__ import annotations

import logging
from collections import defaultdict
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from .runs import Run

logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it logs each file

TAGS = ("train_loss", "train_dice", "val_dice")


def read_curves(run: Run) -> list[dict[str, Any]]:
    """A row per epoch: epoch, slices (seen until its end) and TAGS; `None` without validation.

    `train_loss` is the mean over the epoch's steps. Steps repeated after a kill are equal; the last one counts.
    """
    log = EventAccumulator(str(run.training), size_guidance={"scalars": 0}).Reload()  # 0: all
    found = log.Tags()["scalars"]
    steps = {tag: {event.step: event.value for event in log.Scalars(tag)} if tag in found else {} for tag in TAGS}
    if not steps["train_loss"]:  # no TensorBoard files
        return []
    by_epoch = defaultdict(list)
    per_epoch = len(steps["train_loss"]) / run.epochs
    for step, loss in steps["train_loss"].items():
        by_epoch[int((step - 1) // per_epoch) + 1].append(loss)
    return [
        {
            "epoch": epoch,
            "slices": epoch * run.slices // run.epochs,
            "train_loss": sum(by_epoch[epoch]) / len(by_epoch[epoch]),
            **{tag: steps[tag].get(epoch) for tag in TAGS[1:]},
        }
        for epoch in range(1, run.epochs + 1)
    ]
