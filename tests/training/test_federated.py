"""Federated learning: MONAI's client algorithm on the bundle's configs, with federated averaging in one process."""

from pathlib import Path

import monai
import pytest
import torch
from ignite.engine import Events
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics, WeightType
from monai.fl.utils.exchange_object import ExchangeObject
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from scripts.phantom import make_decathlon

BUNDLE = Path(__file__).resolve().parents[2] / "ravnet_bundle"
ROUNDS, LOCAL_EPOCHS = 3, 2
TINY = {
    "network_def#width": 8,
    "patch_size": [48, 48],
    "phantom_share": 0,
    "slices_per_epoch": 8,
    "pixel_size": 6,
    "num_workers": 0,
    "device": "cpu",
    "learning_rate": 0.003,
    "lr_scheduler#warmup_steps": 1,
    "max_epochs": ROUNDS * LOCAL_EPOCHS,
}


def client(folder: Path, number: int) -> MonaiAlgo:
    """A hospital with two phantoms to train on and one to validate."""
    make_decathlon(folder / "data", training=2, seed=10 * number, shape=(56, 60, 18), spacing=(7, 6, 12))
    settings = {**TINY, "dataset_dir": str(folder / "data"), "ckpt_dir": str(folder / "models"), "seed": number}
    algorithm = MonaiAlgo(
        bundle_root=str(BUNDLE),
        local_epochs=LOCAL_EPOCHS,
        config_train_filename=["configs/train.json", "configs/federated.json"],
        train_kwargs={**settings, "output_dir": str(folder / "runs")},
        eval_kwargs={**settings, "output_dir": str(folder / "eval"), "split": "validation"},
    )
    algorithm.initialize({ExtraItems.CLIENT_NAME: f"hospital {number}"})
    return algorithm


def average(weights, updates):
    """Federated averaging of equally large clients, on the server: what they started from, plus their mean update."""
    means = {name: sum(update[name].double() for update in updates) / len(updates) for name in weights}
    return {name: (weights[name] + means[name]).to(weights[name].dtype) for name in weights}


def state_of(engine) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in engine.network.state_dict().items()}


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def federation(tmp_path_factory):
    """Per round: the weights that the server sent, those that each client began with, its report and its evaluation."""
    folder = tmp_path_factory.mktemp("federation")
    clients = [client(folder / str(number), number) for number in (1, 2)]
    weights, rounds = state_of(clients[0].trainer), []
    for _ in range(ROUNDS):
        begun, reports = [], []
        for algorithm in clients:
            first = Events.ITERATION_STARTED(once=algorithm.trainer.state.iteration + 1)
            algorithm.trainer.add_event_handler(first, lambda engine, begun=begun: begun.append(state_of(engine)))
            algorithm.train(ExchangeObject(weights=weights))
            reports.append(algorithm.get_weights())
        sent, weights = weights, average(weights, [report.weights for report in reports])
        metrics = [algorithm.evaluate(ExchangeObject(weights=weights)).metrics for algorithm in clients]
        rates = [algorithm.trainer.optimizer.param_groups[0]["lr"] for algorithm in clients]
        rounds.append({"sent": sent, "begun": begun, "reports": reports, "metrics": metrics, "rates": rates})
    yield clients, rounds, weights, folder
    for algorithm in clients:
        algorithm.finalize()
    monai.utils.set_determinism(None)


def test_each_round_begins_from_the_servers_average(federation):
    _, rounds, _, _ = federation
    for number, one in enumerate(rounds):
        assert len(one["begun"]) == 2
        assert all(equal(one["sent"], begun) for begun in one["begun"]), number
    assert not equal(rounds[0]["sent"], rounds[1]["sent"])


def test_each_client_sends_its_update_and_what_it_did(federation):
    _, rounds, _, _ = federation
    for number, one in enumerate(rounds):
        for report in one["reports"]:
            assert report.weight_type == WeightType.WEIGHT_DIFF
            assert report.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] == LOCAL_EPOCHS  # one step an epoch
            assert report.statistics["current_epoch"] == (number + 1) * LOCAL_EPOCHS
            assert any(update.any() for update in report.weights.values())
        assert not equal(*(report.weights for report in one["reports"]))


def test_each_client_evaluates_the_average_on_its_own_scans(federation):
    clients, rounds, weights, _ = federation
    assert all(equal(state_of(algorithm.evaluator), weights) for algorithm in clients)
    for one in rounds:
        for metrics in one["metrics"]:
            assert 0 <= metrics["val_dice"] <= 1
            assert metrics["val_dice"] == pytest.approx(metrics["lits_dice"], abs=1e-5)
        accuracies = [metrics["paper_pooled_acc"] for metrics in one["metrics"]]
        assert 0 < min(accuracies) < max(accuracies) < 1


def test_the_schedule_is_the_federations_and_no_client_resumes_on_its_own(federation):
    """`train.json` alone would end its schedule with each round, and take up its own weights from `resume.pt`."""
    _, rounds, _, folder = federation
    rates = [one["rates"][0] for one in rounds]
    assert TINY["learning_rate"] > rates[0] > rates[1] > rates[2] == pytest.approx(0, abs=1e-9)
    assert not list(folder.rglob("resume.pt"))


def test_the_local_losses_fall(federation):
    for name in ("1", "2"):
        log = EventAccumulator(str(federation[3] / name / "runs")).Reload()
        losses = [event.value for event in log.Scalars("train_loss")]
        assert len(losses) == ROUNDS * LOCAL_EPOCHS
        assert losses[-1] < losses[0]
