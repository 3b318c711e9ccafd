"""What a training saves and how it stops, resumes and averages: `scripts/training/handlers.py`, without a bundle."""

import math
import os
import signal
from itertools import count
from multiprocessing import active_children, get_context
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.optimizers import WarmupCosineSchedule

from scripts.training import handlers
from scripts.training.handlers import Averaged, Resume, SaveBest, StopAtLoss, StopOnSignal, save_atomically


def said(caplog) -> list[str]:
    """What this project's loggers say: other tests leave Ignite's at any level."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("scripts")]


def test_a_save_killed_before_its_end_leaves_the_old_content_and_no_pile_of_rests(tmp_path):
    path = tmp_path / "models" / "model.pt"
    save_atomically({"a": torch.arange(3)}, path)

    def save_and_die():
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        save_atomically({"a": torch.arange(4)}, path)

    for _ in range(2):
        child = get_context("fork").Process(target=save_and_die)
        child.start()
        child.join(60)
        assert child.exitcode == -signal.SIGKILL
        assert torch.equal(torch.load(path, weights_only=True)["a"], torch.arange(3))
        assert len(list(path.parent.iterdir())) == 2  # and not one more each time
    save_atomically({"a": torch.arange(5)}, path)
    assert torch.equal(torch.load(path, weights_only=True)["a"], torch.arange(5))
    assert list(path.parent.iterdir()) == [path]


def test_a_save_that_fails_leaves_the_old_content_and_no_rest(tmp_path):
    path = tmp_path / "model.pt"
    save_atomically(1, path)
    with pytest.raises(AttributeError, match="lambda|local object"):
        save_atomically(lambda: 0, path)
    assert torch.load(path, weights_only=True) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_save_reaches_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(handlers.os, "fsync", lambda number: calls.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(handlers.os, "replace", lambda *args: calls.append("replace") or replace(*args))
    save_atomically(1, tmp_path / "model.pt")
    assert calls == ["fsync", "replace", "fsync"]


def test_the_best_weights_are_kept_and_nan_is_never_best(tmp_path):
    network = torch.nn.Linear(1, 1)
    best = SaveBest(tmp_path / "model.pt", network, "dice")
    saved = []
    for i, dice in enumerate([float("nan"), 0.5, 0.4, float("nan"), 0.6, 0.6]):
        torch.nn.init.constant_(network.weight, i)
        evaluator = Engine(lambda *_: None)
        best.attach(evaluator)
        evaluator.add_event_handler(Events.STARTED, lambda engine, dice=dice: engine.state.metrics.update(dice=dice))
        evaluator.run([0])
        path = tmp_path / "model.pt"
        saved.append(int(torch.load(path, weights_only=True)["weight"]) if path.exists() else None)
    assert saved == [None, 1, 1, 1, 4, 4]
    other = SaveBest(tmp_path / "model.pt", network, "dice")
    other.load_state_dict(best.state_dict())
    assert other.best == 0.6


def count_steps(epochs: int, steps: int, handlers: list) -> Engine:
    trainer = Engine(lambda *_: [{"loss": 1 / trainer.state.iteration}])
    for handler in handlers:
        handler.attach(trainer)
    trainer.run(range(steps), max_epochs=epochs)
    return trainer


def test_a_sigterm_at_an_epochs_last_step_does_not_pass_for_a_completed_epoch(tmp_path):
    """Ignite ends the run before EPOCH_COMPLETED there: the epoch's schedule step and validation are still to come."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

    class Step:
        def attach(self, engine):
            engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: (optimizer.step(), schedule.step()))

    class Tell:
        def attach(self, engine):
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=6), lambda: signal.raise_signal(signal.SIGTERM))

    resume = Resume(tmp_path / "resume.pt", {"schedule": schedule})
    trainer = count_steps(4, 3, [Step(), Tell(), StopOnSignal(), resume])
    assert trainer.state.iteration == 6
    saved = torch.load(tmp_path / "resume.pt", weights_only=True)
    assert (saved["epoch"], saved["iteration"], saved["schedule"]["last_epoch"]) == (1, 3, 1)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    trainer = count_steps(4, 3, [Step(), StopOnSignal(), Resume(tmp_path / "resume.pt", {"schedule": schedule})])
    assert (trainer.state.iteration, schedule.last_epoch) == (12, 4)


def test_a_sigterm_to_every_process_leaves_the_workers_at_work():
    class Tell:
        def attach(self, engine):
            engine.add_event_handler(Events.ITERATION_COMPLETED(once=5), self.tell)

        def tell(self):
            workers = active_children()
            assert workers
            for process in workers:
                os.kill(process.pid, signal.SIGTERM)
            workers[0].join(2)
            assert workers[0].is_alive()
            signal.raise_signal(signal.SIGTERM)

    trainer = Engine(lambda *_: None)
    for handler in (Tell(), StopOnSignal()):
        handler.attach(trainer)
    trainer.run(DataLoader(range(4), num_workers=1, multiprocessing_context="fork"), max_epochs=3)
    assert (trainer.state.epoch, trainer.state.iteration) == (2, 5)
    assert active_children() == []  # the workers end with the training
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_a_finished_training_started_again_changes_nothing_and_says_so(tmp_path, caplog):
    path = tmp_path / "resume.pt"
    count_steps(2, 3, [Resume(path, {}, interval=5)])
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert said(caplog) == []
    trainer = count_steps(2, 3, [Resume(path, {}, interval=5)])
    assert (trainer.state.epoch, trainer.state.iteration) == (2, 6)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert "resume.pt is of a training that has ended: nothing is left to do" in said(caplog)[-1]


def test_a_training_is_made_longer_with_a_schedule_as_long_as_it(tmp_path):
    def rates(epochs: int) -> list[float]:
        optimizer, seen = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0), []
        schedule = WarmupCosineSchedule(optimizer, warmup_steps=0, t_total=epochs)

        class Step:
            def attach(self, engine):
                engine.add_event_handler(Events.EPOCH_COMPLETED, self)

            def __call__(self):
                seen.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                schedule.step()

        count_steps(epochs, 1, [Step(), Resume(tmp_path / "resume.pt", {"schedule": schedule, "optimizer": optimizer})])
        return seen

    assert len(rates(4)) == 4
    longer = rates(8)[1:]  # but for the epoch that begins with what the shorter one came to
    assert longer == pytest.approx([0.5 * (1 + math.cos(math.pi * epoch / 8)) for epoch in (5, 6, 7)])


@pytest.mark.parametrize("steps", [2, 3, 9])
def test_a_training_goes_on_with_other_steps_an_epoch_to_its_last(steps, tmp_path):
    """On more ranks, with more scans a step or with other scans."""
    count_steps(4, 6, [Resume(tmp_path / "resume.pt", {})])
    trainer = count_steps(6, steps, [Resume(tmp_path / "resume.pt", {})])
    assert (trainer.state.epoch, trainer.state.iteration) == (6, 6 * steps)


def test_the_training_of_another_network_is_not_resumed(tmp_path, caplog):
    for size in (2, 3):
        trainer = count_steps(2, 3, [Resume(tmp_path / "resume.pt", {"network": torch.nn.Linear(size, 1)})])
        assert trainer.state.epoch == 2
    assert said(caplog) == [f"{tmp_path / 'resume.pt'} is of a training with other first weights: not resumed"]
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["network"]["weight"].shape == (1, 3)


def test_the_averages_warm_up_goes_on_after_a_resumption(tmp_path):
    def momenta(epochs: int, path: Path) -> list[float]:
        network, seen = torch.nn.Linear(1, 1), []

        class Watch:
            def attach(self, engine):
                engine.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(engine.state.ema_momentum))

        averaged = Averaged(network, momentum=0.1, momentum_warmup=0.5, warmup_iters=9)
        count_steps(epochs, 2, [averaged, Watch(), Resume(path, {"averaged": averaged.ema_model})])
        return seen

    whole = momenta(4, tmp_path / "whole.pt")
    assert whole == pytest.approx([0.5 - 0.05 * i for i in range(8)])
    assert momenta(2, tmp_path / "parts.pt") + momenta(4, tmp_path / "parts.pt") == whole


def test_stop_at_loss_takes_the_mean_of_one_epoch():
    steps = count()
    losses = [9.0, 0.1, 0.4, 0.2, 0.1, 0.1]  # means 4.55, 0.3, 0.1
    trainer = Engine(lambda *_: [{"loss": losses[next(steps)]}])
    StopAtLoss(0.31).attach(trainer)
    trainer.run(range(2), max_epochs=3)
    assert trainer.state.epoch == 2
