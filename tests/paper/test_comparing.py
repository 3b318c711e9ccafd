"""configs/compare.json on phantoms: what it writes, how it goes on, what it refuses."""

import csv
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import matplotlib.image
import monai
import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

import scripts.training.handlers
from scripts.batch.claims import Claim
from scripts.inference.axial import AxialInferer
from scripts.networks import RAVNet
from scripts.paper.published import PUBLISHED
from scripts.paper.runs import Run
from scripts.phantom import make_decathlon

BUNDLE = Path(__file__).parents[2] / "ravnet_bundle"
CONFIG = str(BUNDLE / "configs" / "compare.json")
VARIANT = "RA V-Net, half the LSTM"
CHOSEN = ["SA-UNet", "ULSM-Net", "RA V-Net", VARIANT]
EPOCHS = 6
SMALL = {
    "pixel_size": 6,
    "seen": [0],
    "phantom_share": 0,
    "coarse_epochs": 0,
    "patch_size": [48, 48],
    "learning_rate": 0.01,
    "num_workers": 0,
    "save_interval": 1,
    "slices_per_epoch": 16,
    "batch_size": 8,
    "val_interval": 2,
}
FOLDS = [{"networks": ["RA V-Net"], "folds": [0, 1]}, {"networks": [*CHOSEN, "U-Net++", "CS2-Net"], "folds": [0]}]
TINY = {"scale": 0.125, "budget": 100, "folds": 2, "experiments": FOLDS, "settings": SMALL}
TABLES = ["runs.csv", "cases.csv", "tables.md"]
FIGURES = ["scans.png", "time.png", "training.png", "contours.png"]


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


def run_folder(output: Path, network: str, fold: int = 0) -> Path:
    return output / "runs" / network.replace(" ", "_") / f"fold_{fold}" / "seed_0"


def table_row(output: Path, name: str, title: str) -> list[str]:
    text = (output / "tables.md").read_text().split(f"## {title}")[1].split("##")[0]
    line = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_each_scan_is_tested_once_by_a_network_that_has_not_seen_it(whole, phantoms):
    names = {item.name.split(".")[0] for item in (phantoms / "labelsTr").iterdir()}
    tested = [row["name"] for row in rows(whole[0] / "cases.csv", network="RA V-Net")]
    assert sorted(tested) == sorted(names)
    for fold in (0, 1):
        split = json.loads((run_folder(whole[0], "RA V-Net", fold) / "settings.json").read_text())["scans"]
        assert set(split["test"]) == {
            r["name"] for r in rows(whole[0] / "cases.csv", network="RA V-Net", fold=str(fold))
        }
        assert not set(split["test"]) & set(split["training"] + split["validation"])


@pytest.mark.parametrize("network", ["SA-UNet", "ULSM-Net", "RA V-Net"])
def test_the_rows_are_those_of_the_masks(network, whole, phantoms):
    masks = run_folder(whole[0], network) / "test" / "masks"
    found = rows(whole[0] / "cases.csv", network=network, fold="0")
    assert found
    for row in found:
        mask, label = (nib.load(folder / f"{row['name']}.nii.gz") for folder in (masks, phantoms / "labelsTr"))
        assert np.allclose(mask.affine, label.affine, atol=1e-3)
        ours, truth = np.asarray(mask.dataobj) > 0, np.asarray(label.dataobj) > 0
        assert float(row["dice"]) == pytest.approx(2 * (ours & truth).sum() / (ours.sum() + truth.sum()), abs=1e-5)


def test_a_network_is_compared_by_its_largest_component(whole):
    paths = [path for path in whole[0].glob("runs/*/*/*/test/masks/*") if "ULSM" not in str(path)]  # which refines it
    assert paths
    for mask in (nib.load(path).dataobj for path in paths):
        parts = np.bincount(ndimage.label(mask, np.ones((3, 3, 3)))[0].ravel())[1:]
        assert not len(parts) or parts.max() > 0.99 * parts.sum()  # the way back to the scan's grid may part a voxel


def test_the_table_has_mean_published_figure_and_paired_difference(whole):
    output = whole[0]
    scores = {n: {r["name"]: float(r["dice"]) for r in rows(output / "cases.csv", network=n)} for n in CHOSEN}
    cells = table_row(output, "RA V-Net", "All folds")
    assert cells[1].startswith(f"{np.mean(list(scores['RA V-Net'].values())):.3f}".lstrip("0"))
    assert cells[3] == ".9654" and PUBLISHED["RA V-Net"] == (0.9654,)
    cells = table_row(output, "SA-UNet", "Some folds")
    delta = np.mean([scores["RA V-Net"][name] - value for name, value in scores["SA-UNet"].items()])
    assert cells[3] == ".9105" and float(cells[4].split(" ")[0]) == pytest.approx(delta, abs=6e-4)
    cells = table_row(output, VARIANT, "What each choice is worth")
    delta = np.mean([value - scores["RA V-Net"][name] for name, value in scores[VARIANT].items()])
    assert cells[2] == "RA V-Net" and float(cells[3].split(" ")[0]) == pytest.approx(delta, abs=6e-4)
    assert "ULSM-Net, our reading" in (output / "tables.md").read_text()


def test_a_run_has_its_facts(whole):
    (row,) = rows(whole[0] / "runs.csv", network="RA V-Net", fold="0")
    assert int(row["parameters"]) == sum(p.numel() for p in RAVNet(width=8).parameters())
    assert int(row["slices"]) == 16 * EPOCHS and len(row["validation"].split()) == 3
    assert 0 < float(row["forward_ms"]) < float(row["step_ms"])
    assert row["commit"] and row["hardware"]
    (half,) = rows(whole[0] / "runs.csv", network=VARIANT)
    assert int(half["parameters"]) == sum(p.numel() for p in RAVNet(width=8, lstm_ratio=0.5).parameters())


def test_the_figures_are_drawn_with_the_contours_of_both(whole):
    pictures = {name: matplotlib.image.imread(whole[0] / name)[..., :3] for name in FIGURES}
    assert all(min(picture.shape[:2]) > 300 and picture.std() > 0.05 for picture in pictures.values())
    for colour in ((64, 255, 128), (255, 64, 64)):
        assert (abs(pictures["contours.png"] * 255 - colour) < 3).all(-1).sum() > 20


def test_every_network_trains_on_the_same_batches_of_a_fold(whole):
    batches = list(whole[1].values())
    assert len(batches) == 5  # RA V-Net in two folds, SA-UNet, ULSM-Net's U-Net, the variant
    assert len(batches[0]) == 2 * EPOCHS and len(set(batches[0])) == 2 * EPOCHS
    assert sum(others == batches[0] for others in batches) == 4


def test_networks_of_one_structure_are_trained_once(whole):
    assert (run_folder(whole[0], "U-Net") / "record.json").exists()
    assert not (run_folder(whole[0], "ULSM-Net") / "models").exists()
    assert not rows(whole[0] / "runs.csv", network="U-Net")  # trained, not evaluated


def test_a_second_call_runs_nothing_and_makes_the_same_tables(whole, phantoms, tmp_path):
    output = tmp_path / "copied"  # as from several machines
    shutil.copytree(whole[0], output)
    before = {path: path.stat().st_mtime_ns for path in (output / "runs").rglob("*")}
    for name in (*TABLES, *FIGURES):
        (output / name).unlink()
    compare(phantoms, output, CHOSEN)
    assert {path: path.stat().st_mtime_ns for path in (output / "runs").rglob("*")} == before
    for name in TABLES:
        assert (output / name).read_text() == (whole[0] / name).read_text()


def test_the_rows_alone_are_enough_to_go_on(whole, phantoms, tmp_path):
    for name in TABLES[:2]:
        shutil.copy(whole[0] / name, tmp_path)
    compare(phantoms, tmp_path, CHOSEN)
    assert not (tmp_path / "runs").exists()
    for name in TABLES:
        assert (tmp_path / name).read_text() == (whole[0] / name).read_text()


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
    (first,), (second,) = (rows(output / "runs.csv", network="SA-UNet") for output in (whole[0], tmp_path))
    assert first["validation"] == second["validation"]
    assert not state.exists()


def test_a_run_of_another_process_is_waited_for_and_not_done_twice(whole, phantoms, tmp_path, monkeypatch):
    theirs, run = Claim.take(run_folder(tmp_path, "SA-UNet"), "run"), Run.run

    def end():
        shutil.copytree(run_folder(whole[0], "SA-UNet"), run_folder(tmp_path, "SA-UNet"), dirs_exist_ok=True)
        theirs.release()

    def watched(self):
        threading.Timer(0.2, end).start()
        return run(self)

    monkeypatch.setattr(Run, "run", watched)
    compare(phantoms, tmp_path, ["SA-UNet"])
    assert len(rows(tmp_path / "runs.csv", network="SA-UNet")) == 1
    assert not (tmp_path / "cache").exists()  # nothing was trained


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"budget": 200}, "train#max_epochs: 6 there, 12 here"),
        ({"settings": {**SMALL, "learning_rate": 0.1}}, "train#learning_rate: 0.01 there, 0.1 here"),
        ({"folds": 9}, "no fold 0 of 9: folds count from 0, and there can be 2 to 7 of them"),
    ],
)
def test_changed_settings_are_refused_in_one_line(changed, said, whole, phantoms):
    before = {path: path.stat().st_mtime_ns for path in whole[0].rglob("*")}
    with pytest.raises(SystemExit) as refused:
        compare(phantoms, whole[0], ["RA V-Net"], **changed)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert {path: path.stat().st_mtime_ns for path in whole[0].rglob("*")} == before


def test_rows_of_another_budget_are_refused_although_their_folders_are_gone(whole, phantoms, tmp_path):
    shutil.copy(whole[0] / "runs.csv", tmp_path)
    with pytest.raises(SystemExit, match="RA V-Net was made with 96 slices, not 192: name another output_dir"):
        compare(phantoms, tmp_path, CHOSEN, budget=200)


def test_a_row_whose_variant_is_gone_stays_in_the_tables(whole, phantoms, tmp_path):
    for name in TABLES[:2]:
        shutil.copy(whole[0] / name, tmp_path)
    compare(phantoms, tmp_path, [], variants={}, experiments=FOLDS[:1])
    assert table_row(tmp_path, VARIANT, "What each choice is worth")[2] == "-"


def test_one_fold_of_two_is_not_called_all(whole, phantoms, tmp_path):
    for name in TABLES[:2]:
        head, *lines = (whole[0] / name).read_text().splitlines()
        kept = [line for line in lines if not line.startswith("RA V-Net,1,")]
        assert len(kept) < len(lines)
        (tmp_path / name).write_text("\n".join([head, *kept]) + "\n")
    compare(phantoms, tmp_path, [])
    assert "## All folds" not in (tmp_path / "tables.md").read_text()
    assert table_row(tmp_path, "RA V-Net", "Some folds")
