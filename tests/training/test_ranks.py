"""What differs from rank to rank: handlers on two forks of this process, and the overlays for several devices."""

import signal
from multiprocessing import get_context
from pathlib import Path

import ignite.distributed as idist
import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from monai.data import DataLoader
from monai.engines import IterationEvents
from test_distributed import BUNDLE, configs, leave_as_it_was

from scripts.networks import RAVNet
from scripts.training.handlers import MeanOverRanks, Resume, Seed, StopOnSignal, save_atomically

__all__ = ["leave_as_it_was"]  # a fixture, used by being here


def on_two_ranks(function, folder: Path) -> list:
    """What a function returns on each of two ranks, without torchrun: forks of this process."""
    context = get_context("fork")

    def run(rank: int, pipe) -> None:
        torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
        pipe.send(function())
        torch.distributed.destroy_process_group()

    pipes = [context.Pipe() for _ in range(2)]
    children = [context.Process(target=run, args=(rank, pipe[1])) for rank, pipe in enumerate(pipes)]
    for child in children:
        child.start()
    try:
        assert all(pipe.poll(60) for pipe, _ in pipes)
        return [pipe.recv() for pipe, _ in pipes]
    finally:
        for child in children:
            child.kill()


def test_a_sigterm_to_one_rank_ends_all_after_the_same_step_and_the_first_saves(tmp_path):
    def train() -> tuple[int, int]:
        class Tell:
            def attach(self, engine):
                if idist.get_rank() == 1:
                    engine.add_event_handler(Events.ITERATION_COMPLETED(once=5), lambda: signal.raise_signal(15))

        trainer = Engine(lambda *_: None)
        resume = Resume(tmp_path / f"resume{idist.get_rank()}.pt", {})
        for handler in (Tell(), StopOnSignal(), resume):
            handler.attach(trainer)
        trainer.run(range(3), max_epochs=4)
        return trainer.state.iteration, resume.saved

    assert on_two_ranks(train, tmp_path) == [(5, 1), (5, 1)]
    assert [path.name for path in tmp_path.glob("*.pt")] == ["resume0.pt"]


def test_ranks_that_do_not_see_one_folder_are_refused(tmp_path):
    """As on several machines, each with an output_dir of its own, where a training begins anew on all but one."""
    save_atomically({"epoch": 2, "iteration": 6}, tmp_path / "resume0.pt")

    def train() -> str:
        trainer = Engine(lambda *_: None)
        Resume(tmp_path / f"resume{idist.get_rank()}.pt", {}).attach(trainer)
        with pytest.raises(RuntimeError) as refused:
            trainer.run(range(3), max_epochs=4)
        return str(refused.value)

    for rank, message in enumerate(on_two_ranks(train, tmp_path)):
        assert message == f"{tmp_path}/resume{rank}.pt is of epochs [2, 0], by rank: all ranks must see one output_dir."


def test_loss_and_statistics_become_the_mean_over_ranks(tmp_path):
    def step() -> tuple[float, list[float], int]:
        rank, network = idist.get_rank(), torch.nn.BatchNorm2d(2)
        network.running_mean += torch.tensor([1.0, 2.0]) * rank
        network.num_batches_tracked += 7
        trainer = Engine(lambda *_: None)
        trainer.register_events(*IterationEvents)
        MeanOverRanks(network).attach(trainer)
        trainer.state.output = {"loss": torch.tensor(0.5 + rank)}
        trainer.fire_event(IterationEvents.BACKWARD_COMPLETED)
        return (
            float(trainer.state.output["loss"]),
            network.running_mean.tolist(),
            int(network.num_batches_tracked),
        )

    assert on_two_ranks(step, tmp_path) == [(1.0, [0.5, 1.0], 7)] * 2


def test_no_rank_draws_what_another_does(tmp_path):
    def draws() -> list[float]:
        found, trainer = [], Engine(lambda *_: found.append(float(torch.rand(1))))
        trainer.data_loader = DataLoader([0, 1])
        Seed(0).attach(trainer)
        trainer.run(trainer.data_loader, max_epochs=2)
        return found

    first, second = on_two_ranks(draws, tmp_path)
    assert len({*first, *second}) == 8
    assert first == draws()  # as one process does


@pytest.mark.parametrize("names", [("train", "multi_gpu_train"), ("train", "evaluate", "multi_gpu_evaluate")])
def test_what_shows_something_is_switched_off_on_other_ranks_and_nothing_else(names):
    config = ConfigParser.load_config_files(configs(*names))
    assert config["rank"] == "$torch.distributed.get_rank()"
    shows = {"StatsHandler", "TensorBoardStatsHandler", "ignite.handlers.ProgressBar"}
    parts = ("train", "validate") if "evaluate" not in names else ("validate",)
    for handler in (handler for part in parts for handler in config[part]["handlers"]):
        assert handler.get("_disabled_") == ("$@rank > 0" if handler["_target_"] in shows else None)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_overlay_leaves_monai_labels_scans_as_they_are_and_each_rank_validates_its_own(rank):
    parser = ConfigParser(ConfigParser.load_config_files(configs("train", "multi_gpu_train")))
    scans = [{"image": torch.full((1, 4, 4, 4), float(i))} for i in range(5)]
    parser.update(
        {"bundle_root": str(BUNDLE), "device": "cpu", "rank": rank, "ranks": 2}
        | {"validate#dataset": {"_target_": "Dataset", "data": scans}}
    )
    loader = parser.get_parsed_content("validate#dataloader")
    assert [int(batch["image"].max()) for batch in loader] == [[0, 2, 4], [1, 3]][rank]


def test_on_cuda_every_batch_normalisation_is_synchronised_and_the_weights_keep_their_names():
    parser = ConfigParser(ConfigParser.load_config_files(configs("train", "multi_gpu_train")))
    parser.update({"bundle_root": str(BUNDLE), "device": "cpu", "on_cuda": True})  # only what follows from it
    network, averaged = (parser.get_parsed_content(id) for id in ("network", "averaged"))
    for module in (network, averaged.ema_model):
        layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm)]
        assert layers and all(isinstance(layer, torch.nn.SyncBatchNorm) for layer in layers)
    assert network.state_dict().keys() == RAVNet(in_channels=3, width=32, lstm_ratio=0.5).state_dict().keys()
    averaged.ema_model(torch.zeros(1, 3, 16, 16))  # validation's needs no other rank
