"""What MONAI does with the folder `ravnet_bundle/`: its configs as workflows, and its commands as processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import monai
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, verify_net_in_out
from monai.engines import SupervisedEvaluator, SupervisedTrainer

from scripts.networks import RAVNet
from scripts.phantom import make_phantom, save_phantom

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "ravnet_bundle"
CONFIGS = BUNDLE / "configs"
TINY = {
    "network_def#width": 8,
    "patch_size": [32, 32],
    "phantom_share": 0,
    "slices_per_epoch": 16,
    "max_epochs": 1,
    "val_interval": 1,
    "num_workers": 0,
    "device": "cpu",
}


def config(name):
    return json.loads((CONFIGS / f"{name}.json").read_text())


def path(*names):
    return [str(CONFIGS / f"{name}.json") for name in names]


def python(*arguments, cwd):
    """`python ARGUMENTS` as a process of its own, to which nothing but its folder says where the bundle is; its log."""
    ended = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-3000:]
    return ended.stdout


def command(name, *names, cwd=BUNDLE, **overrides):
    """`python -m monai.bundle NAME` on configs; overrides as on a command line: Python's literals, or text."""
    files = [str(Path(file).relative_to(cwd)) if cwd == BUNDLE else file for file in path(*names)]
    options = [part for key, value in overrides.items() for part in (f"--{key}", str(value))]
    return python("-m", "monai.bundle", *name.split(), "--config_file", str(files), *options, cwd=cwd)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """The Zoo's own test data: ten 64-cubes of random int8 with random labels, in Decathlon layout.

    Its volumes are of 0 and 1, which the plausibility check of our inference takes for a mask; these are HU.
    """
    folder = tmp_path_factory.mktemp("volumes")
    generator = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir()
    entries = []
    for i in range(10):
        image = nib.Nifti1Image(generator.integers(-128, 128, (64, 64, 64), dtype=np.int8), np.eye(4))
        label = nib.Nifti1Image(generator.integers(0, 2, (64, 64, 64), dtype=np.int8), np.eye(4))
        entry = {"image": f"imagesTr/{i}.nii.gz", "label": f"labelsTr/{i}.nii.gz"}
        nib.save(image, folder / entry["image"])
        nib.save(label, folder / entry["label"])
        entries.append(entry)
    (folder / "dataset.json").write_text(json.dumps({"training": entries}))
    return folder


@pytest.fixture
def small(volumes, tmp_path):
    """Overrides for a training or an evaluation of seconds."""
    folders = {"dataset_dir": str(volumes), "output_dir": str(tmp_path / "out"), "ckpt_dir": str(tmp_path / "models")}
    return {**TINY, **folders}


@pytest.fixture
def as_before():
    """Leaves the search path and the random generators of this process as they were."""
    before = list(sys.path)
    yield
    sys.path[:] = before
    monai.utils.set_determinism(None)


@pytest.mark.parametrize(
    "kind, names",
    [
        ("train", ("train",)),
        ("train", ("train", "evaluate")),
        ("train", ("train", "paper")),
        ("train", ("train", "federated")),
        ("infer", ("inference",)),
    ],
    ids=lambda value: value if isinstance(value, str) else "+".join(value),
)
def test_every_property_that_monai_asks_for_is_there_without_any_data(kind, names, small, tmp_path, as_before):
    more = (small if kind == "train" else {}) | {"dataset_dir": str(tmp_path / "nowhere")}
    workflow = ConfigWorkflow(path(*names), workflow_type=kind, logging_file=False, bundle_root=str(BUNDLE), **more)
    workflow.initialize()
    assert workflow.check_properties() == []


def test_training_and_inference_describe_the_same_network_and_image():
    train, inference = config("train"), config("inference")
    for key in ("network_def", "window_width", "window_level", "pixel_size", "code_path", "network", "amp"):
        assert train[key] == inference[key], key


def test_the_shipped_weights_fit_the_configs_network_strictly():
    definition = {k: v for k, v in config("inference")["network_def"].items() if not k.startswith("_")}
    weights = torch.load(BUNDLE / "models" / "model.pt", weights_only=True)
    RAVNet(**definition).load_state_dict(weights, strict=True)


def test_the_network_takes_and_gives_what_the_metadata_says():
    for n in (1, 3):
        verify_net_in_out(
            "network_def",
            meta_file=str(CONFIGS / "metadata.json"),
            config_file=path("inference")[0],
            device="cpu",
            n=n,
            bundle_root=str(BUNDLE),
        )


@pytest.mark.parametrize(
    ("names", "expected"),
    [(("train",), ["train"]), (("train", "evaluate"), ["evaluate"]), (("inference",), ["evaluate"])],
    ids=["train", "evaluate", "inference"],
)
def test_an_empty_run_id_runs_once(names, expected, small, as_before, monkeypatch):
    """3D Slicer sends one: MONAI then evaluates every item of the config."""
    runs = []
    monkeypatch.setattr(SupervisedTrainer, "run", lambda self: runs.append("train"))
    monkeypatch.setattr(SupervisedEvaluator, "run", lambda self, *_: runs.append("evaluate"))
    more = small if "train" in names else {"dataset_dir": small["dataset_dir"], "device": "cpu"}
    workflow = ConfigWorkflow(path(*names), run_id="", logging_file=False, bundle_root=str(BUNDLE), **more)
    workflow.initialize()
    workflow.run()
    assert runs == expected


def test_random_volumes_go_through_training_evaluation_and_inference(small, tmp_path):
    """The Model Zoo's unit recipe, in a process each; the last one from another folder, by `run_workflow`."""
    small = {**small, "seed": 1}  # a draw that finds something after two steps
    command("run training", "train", **small)
    weights = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    RAVNet(in_channels=3, width=8, lstm_ratio=0.5).load_state_dict(weights, strict=True)
    command("run", "train", "evaluate", **small)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["cases"] == 2 and 0 < summary["lits"]["dice_global"] < 1
    command(
        "run_workflow",
        "inference",
        cwd=tmp_path,
        workflow_type="infer",
        bundle_root=BUNDLE,
        dataset_dir=Path(small["dataset_dir"]) / "imagesTr",
        output_dir="masks",
        device="cpu",
        **{"network_def#width": 8, "checkpointloader#load_path": tmp_path / "models" / "model.pt"},
    )
    masks = sorted((tmp_path / "masks").iterdir())
    assert [mask.name for mask in masks] == [f"{i}_liver.nii.gz" for i in range(10)]
    assert {nib.load(mask).shape for mask in masks} == {(64, 64, 64)}


LOADED = """
import json, sys
import torch
from monai.bundle import create_workflow, download, load

url, ct = sys.argv[1:]
download(name="ravnet_bundle", url=url, bundle_dir="bundles", progress=False)
root = "bundles/ravnet_bundle"
network = load("ravnet_bundle", bundle_dir="bundles", args_file={"bundle_root": root}, device="cpu").eval()
with torch.inference_mode():
    torch.save(network(torch.linspace(0, 1, 3 * 48 * 64).reshape(1, 3, 48, 64)), "logits.pt")
config = root + "/configs/inference.json"
workflow = create_workflow(
    config_file=config, workflow_type="infer", bundle_root=root, output_dir="masks", device="cpu"
)
workflow.dataset_data = [{"image": ct}]
workflow.initialize()
workflow.run()
workflow.finalize()
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """What Python users of the Zoo do, in a folder that knows nothing of ours; the phantom's truth lies beside it."""
    folder = tmp_path_factory.mktemp("zip")
    ignore = shutil.ignore_patterns("__pycache__", "runs", "eval", "model_*", "*.ts", "*.onnx")
    shutil.copytree(BUNDLE, folder / "zip" / "ravnet_bundle", ignore=ignore)
    file = shutil.make_archive(str(folder / "ravnet_bundle"), "zip", folder / "zip", "ravnet_bundle")
    phantom = make_phantom(seed=2, shape=(96, 96, 12), spacing=(4, 4, 12))
    save_phantom(phantom, folder / "ct.nii.gz", folder / "truth.nii.gz")
    (folder / "elsewhere").mkdir()
    python("-c", LOADED, Path(file).as_uri(), folder / "ct.nii.gz", cwd=folder / "elsewhere")
    return folder / "elsewhere"


def test_a_zip_is_downloaded_and_its_network_loaded(elsewhere):
    definition = {k: v for k, v in config("inference")["network_def"].items() if not k.startswith("_")}
    network = RAVNet(**definition).eval()
    network.load_state_dict(torch.load(BUNDLE / "models" / "model.pt", weights_only=True))
    with torch.inference_mode():
        expected = network(torch.linspace(0, 1, 3 * 48 * 64).reshape(1, 3, 48, 64))
    torch.testing.assert_close(torch.load(elsewhere / "logits.pt", weights_only=True), expected, rtol=1e-4, atol=1e-4)


def test_a_list_of_data_is_segmented_into_the_output_folder(elsewhere):
    """`create_workflow` with `dataset_data`; the folder of `dataset_dir` is not there."""
    assert os.listdir(elsewhere / "masks") == ["ct_liver.nii.gz"]
    mask, truth = (
        np.asarray(nib.load(file).dataobj) > 0
        for file in (elsewhere / "masks" / "ct_liver.nii.gz", elsewhere.parent / "truth.nii.gz")
    )
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.8  # a phantom's


def test_mlflow_tracks_a_training(small, as_before, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not a requirement of the tests: pip install mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(BUNDLE)
    monai.bundle.run("training", config_file=path("train"), tracking="mlflow", run_name="a run", **small)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{small['output_dir']}/mlruns.db")
    (experiment,) = [one for one in client.search_experiments() if one.name == "monai_experiment"]
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} == {"a run"}
    metrics = {key: value for run in runs for key, value in run.data.metrics.items()}
    assert 0 < metrics["train_loss"] < 3 and 0 <= metrics["val_dice"] <= 1
