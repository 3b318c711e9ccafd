"""Training through the public command: it learns, survives each kind of end, and goes on as if nothing had happened."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from itertools import count
from multiprocessing import active_children, get_context
from pathlib import Path

import monai
import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.optimizers import WarmupCosineSchedule
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import scripts.training
from scripts.networks import RAVNet
from scripts.phantom import make_decathlon
from scripts.training import Averaged, Resume, SaveBest, StopAtLoss, StopOnSignal, save_atomically

BUNDLE = Path(__file__).parents[1] / "ravnet_bundle"
EPOCHS = 6
WARM_UP = "lr_scheduler#warmup_steps"
TINY = {
    "network_def#width": 8,
    "patch_size": [48, 48],
    "pixel_size": 6,
    "learning_rate": 0.01,
    "max_epochs": EPOCHS,
    "val_interval": 2,
    "save_interval": 1,
}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    make_decathlon(folder, shape=(56, 60, 18), spacing=(7, 6, 12))  # not multiples of 16
    return folder


@pytest.fixture
def here(monkeypatch):
    """Runs a training in this process, from the bundle's root, and leaves the process as it was."""
    monkeypatch.chdir(BUNDLE)
    before = signal.getsignal(signal.SIGTERM), list(sys.path)
    yield
    assert signal.getsignal(signal.SIGTERM) == before[0]
    sys.path[:] = before[1]
    monai.utils.set_determinism(None)


def options(phantoms: Path, output: Path, workers: int, **more) -> dict:
    folders = {"dataset_dir": str(phantoms), "output_dir": str(output), "ckpt_dir": str(output / "models")}
    return {**TINY, WARM_UP: 1, **folders, "num_workers": workers, **more}


def train(phantoms: Path, output: Path, workers: int = 0, overlays: tuple[str, ...] = (), **more) -> None:
    configs = [str(BUNDLE / "configs" / f"{name}.json") for name in ("train", *overlays)]
    settings = options(phantoms, output, workers, **more)
    if "paper" in overlays:  # its learning rate is constant
        del settings[WARM_UP]
    monai.bundle.run("training", config_file=configs, logging_file=False, **settings)


class Command:
    """The same training as a process of its own: `python -m monai.bundle run training`."""

    def __init__(self, phantoms: Path, output: Path, workers: int):
        command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", "configs/train.json"]
        for name, value in options(phantoms, output, workers).items():
            command += [f"--{name}", value if isinstance(value, str) else json.dumps(value)]
        self.output, self.log = output, output / "log.txt"
        output.mkdir(exist_ok=True)
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, cwd=BUNDLE, stdout=log, stderr=subprocess.STDOUT)

    def end(self) -> int:
        self.process.wait(600)
        return self.process.returncode

    def kill_after(self, epoch: int, number: int) -> int:
        """Sends a signal soon after an epoch's state was saved, and waits for the end."""
        try:
            for _ in range(30_000):
                if saved_epoch(self.output) >= epoch:
                    break
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.02)
            self.process.send_signal(number)
            return self.end()
        finally:
            self.process.kill()


def state_of(output: Path) -> dict:
    return torch.load(output / "resume.pt", weights_only=True)


def saved_epoch(output: Path) -> int:
    return state_of(output)["epoch"] if (output / "resume.pt").exists() else 0


def scalars(output: Path, tag: str) -> list[float]:
    log = EventAccumulator(str(output)).Reload()
    return [event.value for event in log.Scalars(tag)]


def differences(a, b, path: str = "") -> list[str]:
    """Where two nested states differ by as much as a bit."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [found for key in a for found in differences(a[key], b[key], f"{path}/{key}")]
    if isinstance(a, (list, tuple)) and len(a) == len(b):
        return [found for i in range(len(a)) for found in differences(a[i], b[i], f"{path}/{i}")]
    equal = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    return [] if equal else [path]


@pytest.fixture(scope="module", params=[0, 1], ids=["no worker", "a worker"])
def uninterrupted(request, phantoms, tmp_path_factory) -> tuple[Path, int]:
    output = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(BUNDLE)
        train(phantoms, output, request.param)
    return output, request.param


def test_it_learns_and_writes_curves_and_weights_that_load_strictly(uninterrupted):
    output, _ = uninterrupted
    losses = scalars(output, "train_loss")
    assert len(losses) == 2 * EPOCHS  # four scans, two in a batch
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    dice = scalars(output, "val_dice")
    assert len(dice) == EPOCHS // 2
    assert state_of(output)["best"]["best"] == pytest.approx(max(dice), abs=1e-6)
    weights = torch.load(output / "models" / "model.pt", weights_only=True)
    assert {type(value) for value in weights.values()} == {torch.Tensor}
    RAVNet(width=8, lstm_ratio=0.5).load_state_dict(weights, strict=True)


def test_a_training_ended_by_sigterm_and_by_kill_9_goes_on_to_the_same_bit(uninterrupted, phantoms, tmp_path):
    reference, workers = uninterrupted
    output = tmp_path / "interrupted"
    if workers == 0:
        command = Command(phantoms, output, workers)
        assert command.kill_after(1, signal.SIGTERM) == 0
        assert "SIGTERM: ended after iteration" in command.log.read_text()
        assert 1 <= saved_epoch(output) < EPOCHS
    first = saved_epoch(output)
    assert Command(phantoms, output, workers).kill_after(first + 1, signal.SIGKILL) == -signal.SIGKILL
    assert first < saved_epoch(output) < EPOCHS
    command = Command(phantoms, output, workers)
    assert command.end() == 0
    assert "resumed from" in command.log.read_text()
    assert differences(state_of(reference), state_of(output)) == []
    weights = [torch.load(folder / "models" / "model.pt", weights_only=True) for folder in (reference, output)]
    assert differences(*weights) == []
    assert list(output.rglob(".*.part")) == []


def test_finetuning_starts_from_the_given_weights_and_leaves_them_alone(uninterrupted, phantoms, tmp_path, here):
    output, workers = uninterrupted
    if workers:
        pytest.skip("the same without a worker")
    given = output / "models" / "model.pt"
    before = given.read_bytes()
    more = {"weights": str(given), "learning_rate": 0.0, "max_epochs": 1, "ckpt_dir": str(tmp_path / "models")}
    train(phantoms, tmp_path, overlays=("finetune",), **more)
    state, weights = state_of(tmp_path), torch.load(given, weights_only=True)
    learned = [name for name in weights if "running" not in name and "num_batches" not in name]
    for network in (state["network"], state["averaged"]):  # a learning rate of 0 changes nothing that is learned
        torch.testing.assert_close([network[name] for name in learned], [weights[name] for name in learned])
    assert given.read_bytes() == before


def test_the_papers_recipe_stops_at_its_loss(phantoms, tmp_path, here):
    stop = f"train#handlers#{len(json.loads((BUNDLE / 'configs/train.json').read_text())['train']['handlers'])}#loss"
    more = {
        "train#trainer#epoch_length": 2,
        "learning_rate": 1e-4,
        "pixel_size": -1,
        "max_epochs": 3,
        "val_interval": 9,
    }
    train(phantoms, tmp_path / "high", overlays=("paper",), **more, **{stop: 1.0})
    state = state_of(tmp_path / "high")
    assert (state["epoch"], state["iteration"]) == (1, 2)
    group = state["optimizer"]["param_groups"][0]
    assert (group["lr"], group["weight_decay"]) == (1e-4, 0)  # Adam's, and constant
    assert all(0 < loss < 1 for loss in scalars(tmp_path / "high", "train_loss"))  # Dice alone
    train(phantoms, tmp_path / "low", overlays=("paper",), **more)
    assert saved_epoch(tmp_path / "low") == 3  # the paper's 5e-4 is far


@pytest.mark.parametrize("overlays", [("bce",), ("paper", "bce")], ids="+".join)
def test_the_cross_entropy_overlay_replaces_the_loss(overlays, phantoms, tmp_path, here, monkeypatch):
    calls = []
    forward = torch.nn.BCEWithLogitsLoss.forward
    monkeypatch.setattr(
        torch.nn.BCEWithLogitsLoss, "forward", lambda *args: calls.append(forward(*args).item()) or forward(*args)
    )
    more = {"train#trainer#epoch_length": 2} if "paper" in overlays else {}
    train(phantoms, tmp_path, overlays=overlays, **more, max_epochs=1)
    assert scalars(tmp_path, "train_loss") == pytest.approx(calls)


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
    monkeypatch.setattr(scripts.training.os, "fsync", lambda number: calls.append("fsync"))
    replace = os.replace
    monkeypatch.setattr(scripts.training.os, "replace", lambda *args: calls.append("replace") or replace(*args))
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
    saved = state_of(tmp_path)
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
    assert caplog.messages == []
    trainer = count_steps(2, 3, [Resume(path, {}, interval=5)])
    assert (trainer.state.epoch, trainer.state.iteration) == (2, 6)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert "resume.pt is of a training that has ended: nothing is left to do" in caplog.messages[-1]


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
    assert caplog.messages == [f"{tmp_path / 'resume.pt'} is of a training that began with other weights: not resumed"]
    assert state_of(tmp_path)["network"]["weight"].shape == (1, 3)


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
