"""configs/compare.json on phantoms: what it writes, how it goes on, what it refuses."""

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib.image
import monai
import nibabel as nib
import numpy as np
import pytest
import torch

import scripts.training.handlers
from scripts.inference.axial import AxialInferer
from scripts.networks import RAVNet
from scripts.paper.published import LOSS_NETWORK, LOSSES, PANELS, TABLES, Published
from scripts.paper.rivals import NETWORKS
from scripts.paper.tables import impossible
from scripts.phantom import make_decathlon

BUNDLE = Path(__file__).parents[2] / "ravnet_bundle"
CONFIG = str(BUNDLE / "configs" / "compare.json")
READING = "RA V-Net, half the LSTM"
CHOSEN = ["SA-UNet", "ULSM-Net", "RA V-Net", READING]
EPOCHS = 6
SMALL = {
    "pixel_size": 6,
    "seen": [0],
    "patch_size": [48, 48],
    "learning_rate": 0.01,
    "num_workers": 0,
    "save_interval": 1,
}
SMALL |= {"slices_per_epoch": 16, "batch_size": 8}
TINY = {"scale": 0.125, "budget": 100, "validations": 3, "settings": SMALL}
FIGURES = [f"figure_{number}.png" for number in (2, 7, 8, 9, 10, 11, 12)]


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    make_decathlon(folder, test=2, shape=(56, 60, 18), spacing=(7, 6, 12))
    return folder


def compare(phantoms: Path, output: Path, networks: list[str], **more) -> None:
    """The public command in this process, which is left as it was."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        places = {"bundle_root": str(BUNDLE), "dataset_dir": str(phantoms), "output_dir": str(output)}
        monai.bundle.run(
            "comparing", config_file=CONFIG, logging_file=False, **places, **{**TINY, "networks": networks, **more}
        )
    monai.utils.set_determinism(None)


@pytest.fixture(scope="module")
def whole(phantoms, tmp_path_factory) -> tuple[Path, dict[torch.nn.Module, list[float]]]:
    """The folder of a comparison, and each network's training batches by their sums.

    The networks themselves are the keys: one that is gone may lend its id to the next.
    """
    output, batches = tmp_path_factory.mktemp("whole"), defaultdict(list)
    forward = AxialInferer._forward

    def watch(self, x, network, *args, **kwargs):
        if network.training:
            batches[network].append(float(x.sum()))
        return forward(self, x, network, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AxialInferer, "_forward", watch)
        compare(phantoms, output, CHOSEN)
    return output, batches


def rows(path: Path, **wanted: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return [row for row in csv.DictReader(file) if wanted.items() <= row.items()]


def value(output: Path, **wanted: str) -> float:
    (row,) = rows(output / "tables.csv", **wanted)
    return float(row["value"] or "nan")  # a network that found nothing has no distances


def run_folder(output: Path, network: str, loss: str = "Dice") -> Path:
    return output / "runs" / network.replace(" ", "_") / loss


@pytest.mark.parametrize("network, loss", [("SA-UNet", "Dice"), ("ULSM-Net", "Dice"), ("RA V-Net", "BCE")])
def test_the_tables_hold_the_figures_of_the_cases(network, loss, whole):
    output, results = whole[0], run_folder(whole[0], network, loss) / "test"
    lits, paper = rows(results / "lits.csv"), rows(results / "paper.csv")
    assert len(lits) == len(paper) == 2
    for metric in ("dice", "voe", "assd_mm", "nsd_3mm"):
        mean = np.mean([float(row[metric]) for row in lits])
        assert value(output, table="lits", network=network, loss=loss, metric=metric) == pytest.approx(
            mean, rel=1e-4, nan_ok=True
        )
    weights = [int(row["liver_slices"]) for row in paper]
    for table in {"RA V-Net": ["1"], "SA-UNet": ["3", "4"], "ULSM-Net": ["4"]}[network]:
        row = {"table": table, "network": network, "loss": loss}
        for metric in ("acc", "dsc", "jsc"):
            mean = np.average([float(row[f"liver_slices_{metric}"]) for row in paper], weights=weights)
            assert value(output, **row, protocol="slices", metric=metric) == pytest.approx(mean, rel=1e-4, nan_ok=True)
        pooled = np.average([float(row["pooled_acc"]) for row in paper])  # cases of one size
        assert value(output, **row, protocol="pooled", metric="acc") == pytest.approx(pooled, rel=1e-4)


def test_the_masks_are_those_that_were_measured(whole, phantoms):
    results = run_folder(whole[0], "RA V-Net") / "test"
    for row in rows(results / "lits.csv"):
        mask, label = (
            nib.load(folder / f"{row['name']}.nii.gz") for folder in (results / "masks", phantoms / "labelsTr")
        )
        assert np.allclose(mask.affine, label.affine, atol=1e-3)
        found, truth = np.asarray(mask.dataobj) > 0, np.asarray(label.dataobj) > 0
        dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
        assert float(row["dice"]) == pytest.approx(dice, abs=1e-5)


def test_each_row_has_the_published_figures_ours_and_what_they_were_made_with(whole):
    output, text = whole[0], (whole[0] / "tables.md").read_text()
    row = next(line for line in text.split("## Table 4")[1].splitlines() if line.startswith("| RA V-Net |"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert cells[0::3] == ["0.9968", "0.9597", "0.9654", "0.9414 †", ""]  # the last: no note
    ours = {"table": "4", "network": "RA V-Net", "protocol": "pooled"}
    assert [float(cell) for cell in cells[2::3]] == pytest.approx(
        [value(output, **ours, metric=metric) for metric in ("acc", "pre", "dsc", "jsc")], abs=1e-4
    )
    (row,) = rows(output / "tables.csv", **ours, metric="dsc")
    assert int(row["parameters"]) == sum(p.numel() for p in RAVNet(width=8).parameters())
    assert (row["slices"], row["seed"], row["status"]) == (str(16 * EPOCHS), "0", "whole")
    assert row["commit"] and row["hardware"]
    assert '--budget "100" --scale "0.125" --split "test" --seed "0"' in text
    assert "| U-Net++ |" in text.replace("not run", "|") and "our reading" in text
    assert {row["status"] for row in rows(output / "tables.csv", network="U-Net++")} == {"not run"}


def test_the_curves_have_a_row_per_epoch_and_a_validation_at_the_last(whole):
    lines = rows(whole[0] / "curves.csv", network="SA-UNet")
    assert [int(row["slices"]) for row in lines] == [16 * epoch for epoch in range(1, EPOCHS + 1)]
    assert all(0 < float(row["train_loss"]) < 1 and 0 <= float(row["train_dice"]) <= 1 for row in lines)
    assert [bool(row["val_dice"]) for row in lines] == [False, True] * 3


def test_the_figures_are_drawn_with_the_contours_of_both(whole):
    pictures = {name: matplotlib.image.imread(whole[0] / name)[..., :3] for name in FIGURES}
    assert all(min(picture.shape[:2]) > 300 and picture.std() > 0.05 for picture in pictures.values())
    for name in ("figure_9.png", "figure_12.png"):
        for colour in ((64, 255, 128), (255, 64, 64)):
            assert (abs(pictures[name] * 255 - colour) < 3).all(-1).sum() > 20


def test_every_network_trains_on_the_same_batches(whole):
    batches = list(whole[1].values())
    assert len(batches) == 5  # SA-UNet, ULSM-Net's U-Net, RA V-Net with both losses, its other reading
    assert len(batches[0]) == 2 * EPOCHS and len(set(batches[0])) == 2 * EPOCHS
    assert all(others == batches[0] for others in batches)


def test_networks_of_one_structure_are_trained_once(whole):
    assert (run_folder(whole[0], "U-Net") / "record.json").exists()
    assert not (run_folder(whole[0], "ULSM-Net") / "models").exists()
    assert {row["status"] for row in rows(whole[0] / "tables.csv", network="U-Net")} == {"trained, not evaluated"}


def test_a_reading_of_the_paper_has_a_row_beside_the_default(whole):
    found = rows(whole[0] / "tables.csv", table="readings", protocol="pooled", metric="dsc")
    parameters = [sum(p.numel() for p in RAVNet(width=8, lstm_ratio=ratio).parameters()) for ratio in (1, 0.5)]
    assert [(row["network"], int(row["parameters"])) for row in found] == list(zip(CHOSEN[2:], parameters))
    assert found[0]["value"] != found[1]["value"]


def test_a_second_call_runs_nothing_and_makes_the_same_tables(whole, phantoms, tmp_path):
    output = tmp_path / "copied"  # as from several machines
    shutil.copytree(whole[0], output)
    before = {path: path.stat().st_mtime_ns for path in (output / "runs").rglob("*")}
    for name in ("tables.md", "tables.csv", "curves.csv", *FIGURES):
        (output / name).unlink()
    compare(phantoms, output, CHOSEN)
    assert {path: path.stat().st_mtime_ns for path in (output / "runs").rglob("*")} == before
    for name in ("tables.md", "tables.csv", "curves.csv"):
        assert (output / name).read_text() == (whole[0] / name).read_text()


KILLED = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
import monai, scripts.training.handlers
save = scripts.training.handlers.save_atomically
def save_and_die(content, path):
    save(content, path)
    if content.get("epoch") == 4:
        os.kill(os.getpid(), signal.SIGKILL)
scripts.training.handlers.save_atomically = save_and_die
monai.bundle.run("comparing", logging_file=False, **json.loads(sys.argv[2]))
"""


def test_a_run_ended_by_sigterm_and_by_kill_9_goes_on_to_the_same_figures(whole, phantoms, tmp_path, monkeypatch):
    save = scripts.training.handlers.save_atomically

    def save_and_tell(content, path):
        save(content, path)
        if content.get("epoch") == 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(scripts.training.handlers, "save_atomically", save_and_tell)
        compare(phantoms, tmp_path, CHOSEN[:1])
    state = run_folder(tmp_path, "SA-UNet") / "resume.pt"
    assert torch.load(state, weights_only=True)["epoch"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "runs"]
    places = {"config_file": CONFIG, "bundle_root": str(BUNDLE), "dataset_dir": str(phantoms)}
    settings = {**places, **TINY, "output_dir": str(tmp_path), "networks": CHOSEN[:1]}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(BUNDLE), json.dumps(settings)], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert torch.load(state, weights_only=True)["epoch"] == 4
    compare(phantoms, tmp_path, CHOSEN[:1])
    folders = [run_folder(output, "SA-UNet") for output in (whole[0], tmp_path)]
    weights = [torch.load(folder / "models" / "model.pt", weights_only=True) for folder in folders]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert len({(folder / "test" / "summary.json").read_text() for folder in folders}) == 1
    curves = [rows(output / "curves.csv", network="SA-UNet") for output in (whole[0], tmp_path)]
    assert curves[0] == curves[1]
    assert not state.exists()


def test_an_unknown_network_ends_the_command_in_one_line(phantoms, tmp_path):
    command = [sys.executable, "-m", "monai.bundle", "run", "comparing", "--config_file", CONFIG]
    command += ["--bundle_root", str(BUNDLE), "--dataset_dir", str(phantoms), "--output_dir", str(tmp_path / "out")]
    done = subprocess.run([*command, "--networks", "['W-Net']"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("comparing: no network is named W-Net: there are U-Net, ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"budget": 200}, "train#max_epochs: 6 there, 12 here"),
        ({"settings": {**SMALL, "learning_rate": 0.1}}, "train#learning_rate: 0.01 there, 0.1 here"),
        ({"split": "holdout"}, "the data have no part 'holdout': there are training, validation, test"),
    ],
)
def test_changed_settings_are_refused_in_one_line(changed, said, whole, phantoms):
    before = {path: path.stat().st_mtime_ns for path in whole[0].rglob("*")}
    with pytest.raises(SystemExit) as refused:
        compare(phantoms, whole[0], ["Res U-Net"], **changed)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert {path: path.stat().st_mtime_ns for path in whole[0].rglob("*")} == before


def test_a_network_that_fails_is_named_and_the_others_go_on(phantoms, tmp_path):
    with pytest.raises(SystemExit) as ended:
        compare(phantoms, tmp_path, ["SA-UNet", "CS2-Net"], scale=0.09375, budget=16)
    said = str(ended.value)
    assert said.startswith("comparing: failed: SA-UNet (scale must leave SA-UNet a whole number") and "\n" not in said
    status = {row["network"]: row["status"] for row in rows(tmp_path / "tables.csv")}
    assert status["SA-UNet"].startswith("failed: scale must leave")
    assert status["CS2-Net"] == "whole"


def test_every_published_row_and_panel_names_a_network_that_there_is():
    named = {name for _, published in TABLES.values() for name in published} | {LOSS_NETWORK}
    named |= {name for panels in PANELS.values() for name in panels}
    assert named <= set(NETWORKS)
    assert set(LOSSES) == set(json.loads(Path(CONFIG).read_text())["losses"])


def test_a_jaccard_that_no_pixels_can_give_is_marked():
    assert impossible(Published(dsc=0.8547, jsc=0.82))
    assert not impossible(Published(dsc=0.9402, jsc=0.89))
    assert not impossible(Published(dsc=0.94))
