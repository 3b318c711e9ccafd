"""configs/evaluate.json end to end on phantoms: files, figures, grids, and its agreement with inference.json."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow
from scipy import ndimage

from scripts.files import DataError
from scripts.networks import RAVNet
from scripts.phantom import make_decathlon
from scripts.training.handlers import save_atomically

BUNDLE = Path(__file__).parents[2] / "ravnet_bundle"
CONFIGS = [str(BUNDLE / "configs" / name) for name in ("train.json", "evaluate.json")]
PIXEL = 6.0


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A Decathlon folder of small phantoms, L, P, S, and a checkpoint of a small network beside it."""
    folder = tmp_path_factory.mktemp("evaluate")
    make_decathlon(folder, training=1, validation=1, test=1, shape=(64, 48, 24), spacing=(PIXEL, PIXEL, 9.0))
    save_atomically(small_network().state_dict(), folder / "model.pt")
    return folder


def small_network():
    torch.manual_seed(1)  # a draw that finds some liver and much else
    return RAVNet(in_channels=3, width=8, lstm_ratio=0.5)


def workflow(data, output, **overrides):
    """The evaluation as `monai.bundle run` sets it up, in float32 and at the phantoms' own pixel size."""
    places = {"dataset_dir": str(data), "ckpt_dir": str(data), "output_dir": str(output), "bundle_root": str(BUNDLE)}
    small = {"network_def#width": 8, "network_def#lstm_ratio": 0.5, "pixel_size": PIXEL, "amp": False}
    small |= {"certain": 0, "diffusion_mm": 0, "smooth_mm": 0}
    small |= {"validate#dataset#cache_rate": 0.0}  # the Zoo's CI sets it
    return ConfigWorkflow(CONFIGS, workflow_type="train", logging_file=False, **places, **{**small, **overrides})


def evaluate(data, output, **overrides):
    """Runs it and gives the evaluator back."""
    flow = workflow(data, output, **overrides)
    flow.initialize()
    flow.run()
    return flow.parser.get_parsed_content("validate#evaluator")


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def paths(data, split):
    (entry,) = json.loads((data / "dataset.json").read_text())[split]
    return data / entry["image"], data / entry["label"]


def predict(path):
    """The liver of a scan by numpy, nibabel and the bare network, on the scan's grid."""
    image = nib.load(path)
    ras = nib.as_closest_canonical(image)
    windowed = (ras.get_fdata().clip(-40, 160) + 40) / 200
    network = small_network().eval()
    with torch.no_grad():
        plane = torch.from_numpy(windowed).float().permute(2, 0, 1)
        below, above = (plane[[min(max(z + k, 0), len(plane) - 1) for z in range(len(plane))]] for k in (-2, 2))
        logits = network(torch.stack([below, plane, above], 1))[:, 0].permute(1, 2, 0)
    components, _ = ndimage.label(logits.numpy() >= 0, np.ones((3, 3, 3)))
    largest = components == np.argmax(np.bincount(components.ravel())[1:]) + 1
    back = nib.orientations.ornt_transform(*(nib.io_orientation(scan.affine) for scan in (ras, image)))
    return nib.orientations.apply_orientation(largest, back)


def test_figures_equal_those_of_an_independent_prediction(data, tmp_path):
    evaluator = evaluate(data, tmp_path)
    image, label = paths(data, "test")
    pred, truth = predict(image), nib.load(label).get_fdata() > 0
    assert nib.aff2axcodes(nib.load(image).affine) != ("R", "A", "S"), "the way back to the grid should matter"
    dice = 2 * (pred & truth).sum() / (pred.sum() + truth.sum())
    assert 0.01 < dice < 0.99

    (lits,) = rows(tmp_path / "lits.csv")
    (paper,) = rows(tmp_path / "paper.csv")
    assert lits["name"] == paper["name"] == image.name.removesuffix(".nii.gz")
    assert float(lits["dice"]) == pytest.approx(dice, abs=1e-4)
    assert float(lits["volume_ml"]) == pytest.approx(pred.sum() * 0.324, rel=1e-4)
    assert float(lits["reference_ml"]) == pytest.approx(truth.sum() * 0.324, rel=1e-4)
    assert float(paper["pooled_acc"]) == pytest.approx((pred == truth).mean(), abs=1e-4)
    liver = truth.any((0, 1))
    slices = [2 * (p & t).sum() / (p.sum() + t.sum()) for p, t in zip(pred.T[liver], truth.T[liver])]
    assert float(paper["liver_slices_dsc"]) == pytest.approx(np.mean(slices), abs=1e-4)

    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["split"], summary["cases"]) == ("test", 1)
    found = evaluator.state.metrics
    assert found["val_dice"] == pytest.approx(dice, abs=1e-4)
    assert found["lits_dice"] == summary["lits"]["per_case"]["dice"]["mean"]


def test_every_metric_that_the_config_names_is_there(data, tmp_path):
    flow = workflow(data, tmp_path)
    flow.initialize()
    flow.run()
    names = [*flow.parser["validate"]["key_metric"], *flow.parser["validate"]["additional_metrics"]]
    found = flow.parser.get_parsed_content("validate#evaluator").state.metrics
    assert "val_dice" in names
    assert set(names) <= set(found)


def test_properties_are_whole_and_nothing_of_the_training_is_built(data, tmp_path):
    flow = workflow(data, tmp_path)
    flow.initialize()
    flow.run()
    built = flow.parser.ref_resolver.resolved_content
    assert "validate::dataset" in built
    assert not [name for name in built if name.startswith(("train::dataset", "train::trainer", "averaged", "best"))]
    assert flow.check_properties() == []


def test_the_split_is_a_key(data, tmp_path):
    evaluate(data, tmp_path, split="validation")
    assert [row["name"] for row in rows(tmp_path / "lits.csv")] == [paths(data, "validation")[0].name[:-7]]
    assert json.loads((tmp_path / "summary.json").read_text())["split"] == "validation"


def test_it_runs_from_elsewhere_with_resampling(data, tmp_path):
    command = [sys.executable, "-m", "monai.bundle", "run", "evaluating", "--config_file", str(CONFIGS)]
    command += ["--bundle_root", str(BUNDLE), "--dataset_dir", str(data), "--ckpt_dir", str(data)]
    command += ["--output_dir", str(tmp_path / "out"), "--network_def#width", "8", "--pixel_size", "8.0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["lits.csv", "paper.csv", "summary.json"]
    assert "lits_dice:" in done.stdout + done.stderr
    assert f"Restored all variables from {data / 'model.pt'}" in done.stdout + done.stderr  # which weights are judged


def test_a_checkpoint_of_another_network_is_refused(data, tmp_path):
    assert "size mismatch" in refusal(data, tmp_path, RuntimeError, **{"network_def#lstm_ratio": 1.0})
    assert not list(tmp_path.iterdir())


def refusal(data, output, kind, **overrides):
    """Runs an evaluation that must fail; gives the text of the deepest error (MONAI wraps them), of this kind."""
    with pytest.raises((ValueError, RuntimeError)) as failed:
        evaluate(data, output, **overrides)
    error = failed.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert type(error) is kind
    return str(error)


def relabelled(data, folder, change):
    """A copy of the data whose test label was changed."""
    shutil.copytree(data, folder)
    _, label = paths(folder, "test")
    nib.save(change(nib.load(label)), label)
    return folder


def test_a_label_stored_in_other_axes_is_refused(data, tmp_path):
    turned = relabelled(data, tmp_path / "data", nib.as_closest_canonical)
    message = refusal(turned, tmp_path / "out", DataError)
    assert re.search(r"label along \('R', 'A', 'S'\), image along \('L', 'P', 'S'\): resample the label", message)
    assert not (tmp_path / "out").exists()


def test_a_label_of_another_shape_is_refused(data, tmp_path):
    cut = relabelled(data, tmp_path / "data", lambda label: label.slicer[..., :-1])
    message = refusal(cut, tmp_path / "out", DataError)
    assert "64, 48, 23" in message and "64, 48, 24" in message


def test_an_identity_affine_of_a_label_changes_no_figure(data, tmp_path):
    """A known fault of LiTS: the label's header says nothing, its voxels are the image's."""
    blank = relabelled(data, tmp_path / "data", lambda label: nib.Nifti1Image(label.dataobj, np.eye(4)))
    evaluate(data, tmp_path / "whole")
    evaluate(blank, tmp_path / "blank")
    assert rows(tmp_path / "blank" / "lits.csv") == rows(tmp_path / "whole" / "lits.csv")


def test_what_is_measured_is_what_inference_does(data, tmp_path):
    """Its steps are inference.json's own; the grid and the network, which the training shares, are the same in both."""
    train, inference = (
        json.loads((BUNDLE / "configs" / name).read_text()) for name in ("train.json", "inference.json")
    )
    shared = ("network_def", "network", "device", "amp", "window_width", "window_level", "pixel_size", "slice_step")
    assert {key: train[key] for key in (*shared, "slab", "seen")} == {
        key: inference[key] for key in (*shared, "slab", "seen")
    }
    parser = workflow(data, tmp_path).parser
    steps = parser.get_parsed_content("validate#postprocessing").transforms
    names = ["Activationsd", "BowelContrastd", "LargestComponentd", "TissueDiffusiond", "LargestComponentd", "Smoothd"]
    assert [type(step).__name__ for step in steps] == [*names, "FromGridd"]
    assert (steps[2].opening_mm, steps[3].length_mm) == (inference["opening_mm"], 0)  # the latter as `workflow` asks
    assert parser.get_parsed_content("validate#inferer").batch_size == inference["slices_per_batch"]
