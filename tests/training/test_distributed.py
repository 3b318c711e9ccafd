"""The multi_gpu overlays on two ranks of the CPU (gloo), started by torchrun as a user starts them.

What only CUDA has, NCCL and SyncBatchNorm at work, is not run here.
"""

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import ignite.distributed as idist
import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.utils import set_determinism
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.networks import RAVNet
from scripts.phantom import make_decathlon
from scripts.training.handlers import save_atomically

BUNDLE = Path(__file__).parents[2] / "ravnet_bundle"
SMALL = {"network_def#width": 8, "pixel_size": 8, "amp": False}
EPOCHS, KILLED = 6, 4  # trained; in which a rank is killed


class Watch:
    """Handler that writes down each step's loss and scans, a file for each rank, and may kill its own rank."""

    def __init__(self, folder: str, kill: int | None):
        self.path, self.kill = Path(folder) / f"rank{idist.get_rank()}.jsonl", kill

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        names = [Path(item["image"].meta["filename_or_obj"]).name for item in engine.state.batch]
        step = {"epoch": engine.state.epoch, "loss": float(engine.state.output[0]["loss"]), "scans": names}
        with open(self.path, "a") as file:
            file.write(json.dumps(step) + "\n")
        if idist.get_rank() == 1 and engine.state.iteration == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)


def configs(*names: str) -> list[str]:
    return [str(BUNDLE / "configs" / f"{name}.json") for name in names]


def torchrun(run_id: str, config_files: list[str], **settings) -> tuple[int, str]:
    """Exit code and output of a command on two ranks."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command += ["-m", "monai.bundle", "run", run_id, "--config_file", str(config_files)]
    for name, value in settings.items():
        command += [f"--{name}", str(value)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen(
        command, cwd=BUNDLE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        output, _ = process.communicate(timeout=400)
    finally:
        process.terminate()  # its ranks too, where they hang
    return process.returncode, output


def alone(kind: str, config_files: list[str], **settings) -> None:
    """The same in this process."""
    before = list(sys.path)
    flow = ConfigWorkflow(config_files, workflow_type=kind, logging_file=False, bundle_root=str(BUNDLE), **settings)
    flow.initialize()
    flow.run()
    sys.path[:] = before


@pytest.fixture(autouse=True, scope="module")
def leave_as_it_was():
    yield
    set_determinism(None)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A Decathlon folder with fewer scans than ranks to validate with and an odd number to test with, and weights."""
    folder = tmp_path_factory.mktemp("data")
    make_decathlon(folder, training=4, validation=1, test=3, shape=(48, 48, 8), spacing=(8, 8, 20))
    torch.manual_seed(0)
    save_atomically(RAVNet(in_channels=3, width=8, lstm_ratio=0.5).state_dict(), folder / "model.pt")
    return folder


def settings(data: Path, output: Path, **more) -> dict:
    folders = {"dataset_dir": str(data), "output_dir": str(output), "ckpt_dir": str(output / "models")}
    schedule = {"learning_rate": 0.03, "max_epochs": EPOCHS, "val_interval": 2, "save_interval": 1, "num_workers": 0}
    return {**SMALL, **folders, **schedule, "lr_scheduler#warmup_steps": 1, **more}


def comparable(folder: Path, kill: int | None) -> str:
    """An overlay under which two ranks can do no other than one process with the doubled batch.

    Nothing is random but the order of the scans, and the normalisation's statistics are frozen: without SyncBatchNorm,
    which needs CUDA, each rank would normalise by its own half of the batch. The loss is bce.json's, a mean over
    voxels: Dice is not the mean of the halves' Dice. Plain SGD's steps differ by rounding where the gradients do; AdamW
    makes a whole step of what rounding leaves of a gradient of nothing.
    """
    frozen = "module.register_forward_pre_hook(lambda module, inputs: module.eval() and None)"
    overlay = {
        "train#dataset": {
            "_target_": "CacheDataset",
            "data": "$@datasplit['training']",
            "transform": "@train#preprocessing",
        },
        "train#trainer#prepare_batch": "$monai.engines.default_prepare_batch",
        "optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": "@learning_rate"},
        "+train#handlers": [{"_target_": "test_distributed.Watch", "folder": str(folder), "kill": kill}],
        "+initialize": [f"$[{frozen} for module in @network.modules() if isinstance(module, torch.nn.BatchNorm2d)]"],
    }
    path = folder / f"comparable_{kill}.json"
    path.write_text(json.dumps(overlay))
    return str(path)


@pytest.fixture(scope="module")
def one(data, tmp_path_factory) -> Path:
    """A training in one process, four scans to a step: the folder of its results."""
    output = tmp_path_factory.mktemp("one")
    alone("train", [*configs("train", "bce"), comparable(output, None)], **settings(data, output, batch_size=4))
    return output


@pytest.fixture(scope="module")
def two(data, tmp_path_factory) -> tuple[Path, list[tuple[int, str]]]:
    """The same on two ranks, two scans each; in its middle the second is killed, and the command given again."""
    output = tmp_path_factory.mktemp("two")
    ended = []
    for kill in (KILLED, None):
        files = [*configs("train", "bce", "multi_gpu_train"), comparable(output, kill)]
        ended.append(torchrun("training", files, **settings(data, output, batch_size=2)))
    return output, ended


def steps(output: Path, rank: int) -> list[dict]:
    return [json.loads(line) for line in (output / f"rank{rank}.jsonl").read_text().splitlines()]


def validations(output: Path) -> dict[int, float]:
    return {event.step: event.value for event in EventAccumulator(str(output)).Reload().Scalars("val_dice")}


def test_a_killed_rank_ends_the_others_and_all_go_on_from_the_last_saved_epoch(two):
    output, ((killed, _), (ended, log)) = two
    assert killed != 0
    assert ended == 0, log
    assert log.count(f"resumed from {output}/resume.pt after epoch {KILLED - 1}") == 2
    epochs = [step["epoch"] for step in steps(output, 1)]
    assert epochs == [*range(1, KILLED + 1), *range(KILLED, EPOCHS + 1)]


def test_two_ranks_learn_what_one_process_learns_from_the_doubled_batch(one, two):
    output, _ = two
    expected = {step["epoch"]: step["loss"] for step in steps(one, 0)}
    assert len(expected) == EPOCHS
    assert expected[EPOCHS] < 0.95 * expected[1]
    for rank in (0, 1):
        for step in steps(output, rank):
            # rounding is 2e-7; ranks that do not share their gradients are off by 7e-6, and their weights by 5e-5
            assert step["loss"] == pytest.approx(expected[step["epoch"]], rel=1e-6)
    found, states = validations(output), [torch.load(f / "resume.pt", weights_only=True) for f in (one, output)]
    assert found[EPOCHS] == pytest.approx(validations(one)[EPOCHS], abs=1e-4)
    assert states[0]["best"]["best"] == pytest.approx(states[1]["best"]["best"], abs=1e-4)
    for name in ("network", "averaged"):  # under the same names, for one process may resume what two began
        torch.testing.assert_close(states[0][name], states[1][name], rtol=0, atol=2e-6)


def test_each_epoch_deals_the_scans_anew_and_each_once(data, two):
    output, _ = two
    dealt = defaultdict(set)
    for rank in (0, 1):
        for step in steps(output, rank):
            dealt[step["epoch"]].add((rank, frozenset(step["scans"])))
    every = {Path(item["image"]).name for item in json.loads((data / "dataset.json").read_text())["training"]}
    for epoch in dealt.values():  # also the one that was begun twice
        assert len(epoch) == 2
        assert sorted(name for _, names in epoch for name in names) == sorted(every)
    assert len({frozenset(epoch) for epoch in dealt.values()}) > 1


def test_only_the_first_rank_writes(two):
    output, _ = two
    curves = [path.name.split(".")[-2] for path in output.glob("events*")]  # the process's number
    assert len(set(curves)) == 2  # one for each of two commands
    assert [path.name for path in (output / "models").iterdir()] == ["model.pt"]
    RAVNet(in_channels=3, width=8, lstm_ratio=0.5).load_state_dict(
        torch.load(output / "models" / "model.pt", weights_only=True)
    )


def test_an_odd_number_of_scans_gets_the_table_that_one_process_writes(data, tmp_path):
    common = {**SMALL, "dataset_dir": str(data), "ckpt_dir": str(data)}
    alone("train", configs("train", "evaluate"), **common, output_dir=str(tmp_path / "one"))
    files = configs("train", "evaluate", "multi_gpu_evaluate")
    code, log = torchrun("evaluating", files, **common, output_dir=str(tmp_path / "two"))
    assert code == 0, log
    assert log.count("wrote paper.csv, lits.csv and summary.json") == log.count("Metrics -- ") == 1
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["lits.csv", "paper.csv", "summary.json"]
    for name in names:
        assert (tmp_path / "two" / name).read_text() == (tmp_path / "one" / name).read_text()
    summary = json.loads((tmp_path / "two" / "summary.json").read_text())
    assert summary["cases"] == 3
    assert f"val_dice: {summary['lits']['per_case']['dice']['mean']:.4f}" in log


@pytest.fixture(scope="module")
def masks(data, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("masks")
    alone("infer", configs("inference"), **inference(data, data / "imagesTr", output))
    return output


def inference(data: Path, scans: Path, output: Path) -> dict:
    weights = {"checkpointloader#load_path": str(data / "model.pt")}
    return {**SMALL, **weights, "dataset_dir": str(scans), "output_dir": str(output)}


@pytest.mark.parametrize("number", [3, 1], ids=["uneven parts", "more ranks than scans"])
def test_every_scan_gets_its_mask_once(number, data, masks, tmp_path):
    scans, output = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for path in sorted((data / "imagesTr").iterdir())[:number]:
        (scans / path.name).symlink_to(path)
    code, log = torchrun("inferring", configs("inference", "multi_gpu_inference"), **inference(data, scans, output))
    assert code == 0, log
    names = [path.name.replace(".nii.gz", "_liver.nii.gz") for path in scans.iterdir()]
    assert sorted(path.name for path in output.iterdir()) == sorted(names)
    assert log.count("writing: ") == number
    for name in names:
        found, expected = (nib.load(folder / name) for folder in (output, masks))
        assert np.array_equal(found.dataobj, expected.dataobj) and np.asarray(found.dataobj).any()
        assert np.array_equal(found.affine, expected.affine)


def test_a_scan_that_one_rank_cannot_read_ends_all_with_one_line(data, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    whole, other = sorted((data / "imagesTr").iterdir())[:2]
    (scans / whole.name).symlink_to(whole)
    broken = scans / other.name
    broken.write_bytes(other.read_bytes()[:2000])
    settings = inference(data, scans, tmp_path / "out")
    code, log = torchrun("inferring", configs("inference", "multi_gpu_inference"), **settings)
    assert code != 0
    errors = [line.removeprefix("[rank1]: ") for line in log.splitlines() if "error: " in line]
    assert errors == [f"error: {broken}: cannot be read: truncated, or not .nii, .nii.gz, .nrrd, .mha, .mhd or DICOM."]


@pytest.mark.parametrize(
    "kind, names",
    [
        ("train", ("train", "multi_gpu_train")),
        ("train", ("train", "evaluate", "multi_gpu_evaluate")),
        ("infer", ("inference", "multi_gpu_inference")),
    ],
)
def test_every_property_that_monai_asks_for_is_there_and_the_group_ends(kind, names, data, tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}.items():
        monkeypatch.setenv(name, value)  # what torchrun sets
    folders = {"bundle_root": str(BUNDLE), "dataset_dir": str(data), "output_dir": str(tmp_path)}
    workflow = ConfigWorkflow(configs(*names), workflow_type=kind, logging_file=False, **folders)
    workflow.initialize()
    assert torch.distributed.is_initialized()
    assert workflow.check_properties() == []
    workflow.finalize()
    assert not torch.distributed.is_initialized()
