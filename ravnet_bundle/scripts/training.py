"""Handlers that MONAI and Ignite lack: atomic checkpoints, exact resumption, a clean end on SIGTERM, a stop at a loss."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from monai.utils import set_determinism

logger = logging.getLogger(__name__)


def save_atomically(content: Any, path: str | os.PathLike) -> None:
    """`torch.save` such that `path` holds, at any moment and after any kill, either the old or the new content."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


class Seed:
    """Seeds torch, numpy, python and the random transforms by (seed, epoch) as each epoch begins.

    An epoch's randomness is a function of its number, so that a resumed run draws what the uninterrupted one would have
    drawn, with workers (seeded from torch as they start) or without.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = (self.seed + 7919 * engine.state.epoch) % 2**32
        set_determinism(seed)
        torch.use_deterministic_algorithms(False)  # upsampling has no deterministic backward on CUDA
        set_rnd(engine.data_loader.dataset, seed)


class Resume:
    """Saves a training's whole state atomically every few epochs, and takes it up again when the training starts.

    Args:
        path: the file; where it exists when the training starts, the training goes on from it.
        objects: name -> object with `state_dict` and `load_state_dict`; the trainer itself (epoch, iteration) is added.
        interval: epochs between two saves.
    """

    def __init__(self, path: str, objects: Mapping[str, Any], interval: int = 1):
        self.path, self.objects, self.interval = Path(path), dict(objects), interval

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.interval), self.save)
        engine.add_event_handler(Events.COMPLETED, self.save)

    def save(self, engine: Engine) -> None:
        if engine.state.iteration % engine.state.epoch_length:
            return  # stopped within an epoch: it is run again from its start
        state = {name: thing.state_dict() for name, thing in self.objects.items()}
        save_atomically({**state, "epoch": engine.state.epoch, "iteration": engine.state.iteration}, self.path)

    def load(self, engine: Engine) -> None:
        if not self.path.exists():
            return
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        for name, thing in self.objects.items():
            thing.load_state_dict(state[name])
        engine.state.epoch, engine.state.iteration = state["epoch"], state["iteration"]
        logger.info("resumed from %s after epoch %d", self.path, state["epoch"])


class SaveBest:
    """Keeps the weights with the best metric: attached to an evaluator, it saves the network's `state_dict` atomically.

    Args:
        path: the file.
        network: whose weights.
        metric: name of the evaluator's metric; greater is better, nan is never best.
    """

    def __init__(self, path: str, network: torch.nn.Module, metric: str):
        self.path, self.network, self.metric = Path(path), network, metric
        self.best = float("-inf")

    def state_dict(self) -> dict[str, float]:
        return {"best": self.best}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        self.best = state["best"]

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        value = float(engine.state.metrics[self.metric])
        if value > self.best:
            self.best = value
            save_atomically(self.network.state_dict(), self.path)
            logger.info("%s %.4f is the best so far: saved %s", self.metric, value, self.path)


class StopOnSignal:
    """Ends the training after the current step when the process is told to end (SIGTERM), as clusters do before a kill."""

    def __init__(self) -> None:
        self.told = False

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.listen)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.stop)

    def listen(self, engine: Engine) -> None:
        if threading.current_thread() is threading.main_thread():  # Python sets signal handlers in no other
            signal.signal(signal.SIGTERM, self.note)

    def note(self, number: int, frame: Any) -> None:
        self.told = True

    def stop(self, engine: Engine) -> None:
        if self.told:
            logger.info("SIGTERM: ended after iteration %d", engine.state.iteration)
            engine.terminate()


class StopAtLoss:
    """Ends the training when an epoch's mean training loss reaches `loss` (the paper: 5e-4, section 3)."""

    def __init__(self, loss: float):
        self.loss = loss
        self.losses: list[float] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self.losses.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.stop)

    def collect(self, engine: Engine) -> None:
        self.losses.append(float(engine.state.output[0]["loss"]))

    def stop(self, engine: Engine) -> None:
        mean = sum(self.losses) / len(self.losses)
        if mean <= self.loss:
            logger.info("training loss %.2e has reached %.2e: ended after epoch %d", mean, self.loss, engine.state.epoch)
            engine.terminate()
