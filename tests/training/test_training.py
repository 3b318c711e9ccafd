"""Training through the public command: it learns, survives each kind of end, and goes on as if nothing had happened."""

import itertools
import json
import runpy
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import ignite.distributed as idist
import monai
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.networks import RAVNet
from scripts.phantom import make_decathlon
from scripts.training.handlers import Seed

BUNDLE = Path(__file__).parents[2] / "ravnet_bundle"
EPOCHS = 6
WARM_UP = "lr_scheduler#warmup_steps"
TINY = {
    "network_def#width": 8,
    "patch_size": [48, 48],
    "slices_per_epoch": 16,
    "pixel_size": 6,
    "liver_share": 1.0,  # batches alike: what is learnt shows in a few steps
    "phantom_share": 0.0,
    "learning_rate": 0.06,
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
    assert len(losses) == 2 * EPOCHS  # 16 slices, 8 in a batch
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])
    assert scalars(output, "slices") == [16 * epoch for epoch in range(1, EPOCHS + 1)]
    rates, hours = scalars(output, "learning_rate"), scalars(output, "hours_left")
    assert len(rates) == EPOCHS and max(rates) == pytest.approx(TINY["learning_rate"]) and rates[-1] < rates[1]
    assert hours[0] > hours[-1] == 0
    dice = scalars(output, "val_dice")
    assert len(dice) == EPOCHS // 2
    assert state_of(output)["best"]["best"] == pytest.approx(max(dice), abs=1e-6)
    weights = torch.load(output / "models" / "model.pt", weights_only=True)
    assert {type(value) for value in weights.values()} == {torch.Tensor}
    RAVNet(in_channels=3, width=8, lstm_ratio=0.5).load_state_dict(weights, strict=True)


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
    assert scalars(output, "slices")[-1] == 16 * EPOCHS


def test_no_two_of_seed_epoch_and_rank_draw_the_same(here, monkeypatch):
    drawn = set()
    for seed, epoch, rank in itertools.product((0, 1, 7919, 104729), (0, 1, 2, 3), (0, 1)):
        monkeypatch.setattr(idist, "get_rank", lambda rank=rank: rank)
        engine = SimpleNamespace(state=SimpleNamespace(epoch=epoch), data_loader=SimpleNamespace(dataset=None))
        Seed(seed)(engine)
        drawn.add(float(torch.rand(1, dtype=torch.float64)))
    assert len(drawn) == 32


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


def test_pixels_are_coarse_at_first_and_fine_from_trained_weights_on(phantoms, tmp_path, here, monkeypatch):
    seen = []
    forward = RAVNet.forward

    def watched(network, x):
        seen.append((network.training, x.shape[2]))
        return forward(network, x)

    def sizes() -> tuple[list[int], int]:
        """The slices' heights in the training's steps, and the volumes' in validation after the first epoch."""
        steps, first = [size for training, size in seen if training], next(s for training, s in seen if not training)
        seen.clear()
        return steps, first

    monkeypatch.setattr(RAVNet, "forward", watched)
    train(phantoms, tmp_path / "first", max_epochs=4, val_interval=1)
    (steps, first), given = sizes(), tmp_path / "first" / "models" / "model.pt"
    assert steps == [32] * 6 + [48] * 2  # 24 pixels, padded; two steps in each of four epochs
    train(phantoms, tmp_path / "second", overlays=("finetune",), weights=str(given), max_epochs=4, val_interval=1)
    steps, second = sizes()
    assert steps == [48] * 8 and first < second


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


def test_a_pack_trains_where_there_are_no_scans(phantoms, tmp_path, here):
    """The archive of `benchmarks/pack.py`, with the overlay for GPUs, on a CPU."""
    pack = runpy.run_path(str(BUNDLE.parent / "benchmarks" / "pack.py"))
    pack["write"](phantoms, tmp_path / "pack.tar", {"pixel_size": 6})
    with tarfile.open(tmp_path / "pack.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    root = tmp_path / "ravnet_bundle"
    folders = {
        "output_dir": str(root / "runs"),
        "ckpt_dir": str(root / "models"),
        "dataset_dir": str(tmp_path / "none"),
    }
    small = {"network_def#width": 8, "patch_size": [48, 48], "slices_per_epoch": 16, "batch_size": 8, "num_workers": 0}
    files = [str(root / "configs" / f"{name}.json") for name in ("train", "packed", "gpu")]
    more = {**small, **folders, "max_epochs": 1}
    monai.bundle.run("training", config_file=files, logging_file=False, bundle_root=str(root), **more)
    RAVNet(in_channels=3, width=8, lstm_ratio=0.5).load_state_dict(
        torch.load(root / "models" / "model.pt", weights_only=True)
    )
    assert len(scalars(root / "runs", "train_loss")) == 2
