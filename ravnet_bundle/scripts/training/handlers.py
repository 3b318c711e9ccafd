"""Handlers that MONAI and Ignite lack: atomic checkpoints, exact resumption, a clean end on SIGTERM, stop at a loss.

All work in one process and under torch.distributed: every rank attaches them, and only rank 0 writes.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from monai.data.utils import set_rnd
from monai.engines import IterationEvents
from monai.utils import set_determinism
from torch.optim.lr_scheduler import LRScheduler

from ..files import atomic

logger = logging.getLogger(__name__)


def save_atomically(content: Any, path: str | os.PathLike) -> None:
    """`torch.save`: after any kill `path` holds either the old or the new content. Only rank 0 writes."""
    if idist.get_rank() == 0:
        with atomic(path) as file:
            torch.save(content, file)


class Attach:
    """Attaches a handler that other config items refer to; MONAI Label needs handlers as plain dictionaries."""

    def __init__(self, handler: Any):
        self.attach = handler.attach


class Seed:
    """Seeds torch, numpy, python and the random transforms by (seed, epoch, rank) at the start of each epoch.

    So a resumed training draws the same numbers as an uninterrupted one, with data workers (seeded from torch) or
    without, and each rank draws its own.
    """

    def __init__(self, seed: int):
        self.seed = seed

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = int(np.random.SeedSequence([self.seed, engine.state.epoch, idist.get_rank()]).generate_state(1)[0])
        set_determinism(seed)
        torch.use_deterministic_algorithms(False)  # upsampling has no deterministic backward on CUDA
        set_rnd(engine.data_loader.dataset, seed)


class Resume:
    """Saves a training's whole state atomically every few epochs, and loads it when the training starts.

    A training is recognised by its network's first weights: the file of another training is replaced. (In MONAI
    Label each training begins with the best weights of the last one.) The config gives the schedule of the learning
    rate; the file only tells how far it is.

    Args:
        path: the file; if it exists at the start, the training resumes from it, on any number of ranks.
        objects: name -> object with `state_dict` and `load_state_dict`; the trainer's epoch and iteration are added.
        interval: epochs between two saves.

    Raises:
        RuntimeError: at the start, if the ranks do not see the same file.
    """

    def __init__(self, path: str, objects: Mapping[str, Any], interval: int = 1):
        self.path, self.objects, self.interval = Path(path), dict(objects), interval
        self.completed = self.saved = 0  # epochs
        self.begin = torch.zeros(0)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.complete)
        engine.add_event_handler(Events.COMPLETED, self.save)

    def complete(self, engine: Engine) -> None:
        self.completed = engine.state.epoch
        if self.completed % self.interval == 0:
            self.save(engine)

    def save(self, engine: Engine) -> None:
        # An epoch that was stopped before its validation is run again.
        if engine.state.epoch != self.completed or self.completed == self.saved:
            return
        state = {name: thing.state_dict() for name, thing in self.objects.items()}
        state |= {"epoch": engine.state.epoch, "iteration": engine.state.iteration, "begin": self.begin}
        save_atomically(state, self.path)
        self.saved = self.completed

    def load(self, engine: Engine) -> None:
        state = torch.load(self.path, map_location="cpu", weights_only=True) if self.path.exists() else None
        if "network" in self.objects:
            self.begin = next(self.objects["network"].parameters()).detach().cpu().clone()
        before = state.get("begin", self.begin) if state else self.begin
        if before.shape != self.begin.shape or not torch.allclose(before, self.begin, rtol=1e-5):
            logger.warning("%s is of a training with other first weights: not resumed", self.path)
            state = None
        epochs = idist.all_gather(state["epoch"] if state else 0)
        if len(set(epochs)) > 1:
            raise RuntimeError(f"{self.path} is of epochs {epochs}, by rank: all ranks must see one output_dir.")
        if state is None:
            return
        for name, thing in self.objects.items():
            if isinstance(thing, LRScheduler):
                progress = {key: state[name][key] for key in ("last_epoch", "_step_count", "_last_lr")}
                thing.load_state_dict(thing.state_dict() | progress)
            else:
                thing.load_state_dict(state[name])
        self.completed = self.saved = engine.state.epoch = state["epoch"]
        # Not the number of steps made: on more ranks an epoch has fewer steps, and Ignite would end the training.
        engine.state.iteration = state["epoch"] * (engine.state.epoch_length or 0)
        logger.info("resumed from %s after epoch %d", self.path, state["epoch"])
        if state["epoch"] >= engine.state.max_epochs:
            logger.warning(
                "%s is of a training that has ended: nothing is left to do. Other data or another recipe need another "
                "--output_dir; a greater --max_epochs continues this one.",
                self.path,
            )


class MeanOverRanks:
    """Averages over the ranks what DistributedDataParallel does not: the loss and the running statistics.

    So the shown loss is that of the whole batch and, without SyncBatchNorm, the normalisation's statistics are the
    same on all ranks, as validation and the average of the weights need.

    Args:
        network: the network inside DistributedDataParallel.
    """

    def __init__(self, network: torch.nn.Module):
        self.network = network

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        statistics = (buffer for buffer in self.network.buffers() if buffer.is_floating_point())
        parts = [engine.state.output["loss"].detach(), *statistics]
        means = idist.all_reduce(torch.cat([part.flatten() for part in parts])) / idist.get_world_size()
        for part, mean in zip(parts, means.split([part.numel() for part in parts])):
            part.copy_(mean.view_as(part))


class Averaged(EMAHandler):
    """Ignite's moving average of the weights, also right after a checkpoint or a resumption.

    Ignite's average begins with the weights at its creation, before MONAI Label's handler loads a checkpoint. And its
    warm-up starts at 0 in each process: its high first momentum would replace a loaded average by the current weights.
    """

    def attach(self, engine: Engine, *args: Any, **kwargs: Any) -> None:
        super().attach(engine, *args, **kwargs)
        engine.add_event_handler(Events.STARTED, self.begin)
        engine.add_event_handler(Events.EPOCH_STARTED, self.go_on)

    def begin(self) -> None:
        self.ema_model.load_state_dict(self.model.state_dict())

    def go_on(self, engine: Engine) -> None:
        if self.momentum_scheduler is not None:
            self.momentum_scheduler.event_index = engine.state.iteration


class SaveBest:
    """Attached to an evaluator, saves the network's `state_dict` atomically when the metric is the best so far.

    Ignite's `Checkpoint` with `DiskSaver(atomic=True)` does not flush the file before it renames it, and saves GPU
    tensors, which a machine without a GPU cannot load.

    Args:
        path: the file.
        network: the network.
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
            # CPU tensors: MONAI's exports and MONAI Label load them also without a GPU
            save_atomically({name: tensor.cpu() for name, tensor in self.network.state_dict().items()}, self.path)
            logger.info("%s %.4f is the best so far: saved %s", self.metric, value, self.path)


class StopOnSignal:
    """Ends the training after the current step at SIGTERM, which clusters send before a kill.

    The process ends with exit code 0, and the same command resumes it. The data loader's workers ignore SIGTERM: some
    clusters send it to every process, and a dead worker would end the training with an error. All ranks end after the
    same step, whichever of them got the signal.
    """

    def __init__(self) -> None:
        self.told = False
        self.before: Any = signal.SIG_DFL

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.listen)
        if hasattr(signal, "pthread_sigmask"):  # not on Windows
            for event in (Events.EPOCH_STARTED, Events.DATALOADER_STOP_ITERATION):  # workers start after these
                engine.add_event_handler(event, self.block, signal.SIG_BLOCK)
            for event in (Events.GET_BATCH_COMPLETED, Events.COMPLETED):
                engine.add_event_handler(event, self.block, signal.SIG_UNBLOCK)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.stop)
        engine.add_event_handler(Events.COMPLETED, self.unlisten)

    def listen(self, engine: Engine) -> None:
        self.told = False
        if threading.current_thread() is threading.main_thread():  # Python sets signal handlers only there
            self.before = signal.signal(signal.SIGTERM, self.note)

    def block(self, engine: Engine, how: signal.Sigmasks) -> None:
        signal.pthread_sigmask(how, [signal.SIGTERM])  # a child process inherits it

    def unlisten(self, engine: Engine) -> None:
        if signal.getsignal(signal.SIGTERM) == self.note:  # restores the handler for what runs after the training
            signal.signal(signal.SIGTERM, self.before)

    def note(self, number: int, frame: Any) -> None:
        self.told = True

    def stop(self, engine: Engine) -> None:
        if idist.all_reduce(float(self.told), "MAX"):
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
            logger.info("training loss %.2e reached %.2e: ended after epoch %d", mean, self.loss, engine.state.epoch)
            engine.terminate()
