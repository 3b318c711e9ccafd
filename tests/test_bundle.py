"""What MONAI and its Model Zoo expect of the folder `ravnet_bundle/`: its configs, metadata and commands."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, create_workflow, load, verify_net_in_out

from scripts.networks import RAVNet

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "ravnet_bundle"
CONFIGS = BUNDLE / "configs"
TINY = {
    "network_def#width": 8,
    "patch_size": [32, 32],
    "slices_per_scan": 2,
    "max_epochs": 1,
    "val_interval": 1,
    "num_workers": 0,
    "device": "cpu",
}


def config(name):
    return json.loads((CONFIGS / f"{name}.json").read_text())


def path(*names):
    return [str(CONFIGS / f"{name}.json") for name in names]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """The Zoo's own test data: ten 64-cubes of random int8 with random labels, in Decathlon layout."""
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


@pytest.mark.parametrize(
    "kind, names",
    [("train", ("train",)), ("train", ("train", "evaluate")), ("train", ("train", "paper")), ("infer", ("inference",))],
)
def test_every_property_that_monai_asks_for_is_there(kind, names, volumes, tmp_path):
    folders = {"bundle_root": str(BUNDLE), "dataset_dir": str(volumes), "output_dir": str(tmp_path)}
    small = TINY if kind == "train" else {}
    workflow = ConfigWorkflow(path(*names), workflow_type=kind, logging_file=False, **folders, **small)
    workflow.initialize()
    assert workflow.check_properties() == []


def test_training_and_inference_describe_the_same_network_and_image():
    train, inference = config("train"), config("inference")
    for key in ("network_def", "window_width", "window_level", "pixel_size", "code_path", "network", "amp"):
        assert train[key] == inference[key], key
    spatial = {step["_target_"]: step for step in train["train"]["deterministic_transforms"]}
    for step in inference["preprocessing"]["transforms"]:
        if step["_target_"] in ("ScaleIntensityRanged", "Orientationd"):
            other = spatial[step["_target_"]]
            assert {k: v for k, v in step.items() if k != "keys"} == {k: v for k, v in other.items() if k != "keys"}


def test_the_shipped_weights_are_small_plain_and_fit_strictly():
    file = BUNDLE / "models" / "model.pt"
    assert file.stat().st_size <= 25e6
    definition = {k: v for k, v in config("inference")["network_def"].items() if not k.startswith("_")}
    RAVNet(**definition).load_state_dict(torch.load(file, weights_only=True), strict=True)


def test_the_metadata_pins_what_was_tested():
    metadata = config("metadata")
    assert metadata["version"] in metadata["changelog"]
    requirements = (ROOT / "requirements.txt").read_text()
    pinned = {"monai": metadata["monai_version"], "numpy": metadata["numpy_version"]}
    for name, version in {**pinned, **metadata["required_packages_version"]}.items():
        assert re.search(rf"^{name}=={re.escape(version)}\b", requirements, re.MULTILINE), name
    setup = (ROOT / "setup.cfg").read_text()
    assert f"version = {metadata['version']}" in setup
    assert metadata["pytorch_version"] in (ROOT / "Makefile").read_text()


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


@pytest.mark.parametrize("use_trace", [False, True])
def test_the_weights_export_to_torchscript(use_trace, tmp_path):
    extra = {"use_trace": True, "input_shape": [1, 1, 64, 64]} if use_trace else {}
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(BUNDLE / "models" / "model.pt"),
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=path("inference")[0],
        bundle_root=str(BUNDLE),
        **extra,
    )
    exported = torch.jit.load(str(tmp_path / "model.ts")).eval()
    network = load("ravnet_bundle", bundle_dir=str(ROOT), source="github").eval()
    x = torch.rand(1, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(exported(x), network(x), rtol=1e-4, atol=1e-4)


def test_random_volumes_go_through_training_evaluation_and_inference(volumes, tmp_path):
    """The Model Zoo's unit recipe, one process each as there."""
    common = {"bundle_root": str(BUNDLE), "dataset_dir": str(volumes), "output_dir": str(tmp_path / "out")}
    small = {**common, **TINY, "ckpt_dir": str(tmp_path / "models")}
    trainer = ConfigWorkflow(path("train"), workflow_type="train", logging_file=False, **small)
    trainer.initialize()
    trainer.run()
    assert trainer.trainer.state.epoch == 1
    weights = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    evaluation = ConfigWorkflow(path("train", "evaluate"), workflow_type="train", logging_file=False, **small)
    evaluation.initialize()
    evaluation.run()
    assert evaluation.evaluator.state.metrics
    inference = create_workflow(
        config_file=path("inference")[0],
        workflow_type="infer",
        bundle_root=str(BUNDLE),
        output_dir=str(tmp_path / "masks"),
        dataset_dir=str(volumes / "imagesTr"),
        device="cpu",
        load_pretrain=False,
        **{"network_def#width": 8},
    )
    inference.network_def.load_state_dict(weights)
    inference.run()
    inference.finalize()
    assert len(list((tmp_path / "masks").iterdir())) == 10


def test_it_runs_from_another_directory(tmp_path):
    """A folder without scans gets as far as saying so, with the network and the weights in place."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", *path("inference")]
    ended = subprocess.run(
        [*command, "--bundle_root", str(BUNDLE), "--dataset_dir", str(tmp_path)],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1
    assert f"error: {tmp_path}: no scan in this folder" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_the_model_card_names_the_shipped_weights():
    digest = hashlib.sha256((BUNDLE / "models" / "model.pt").read_bytes()).hexdigest()
    assert digest in (BUNDLE / "docs" / "README.md").read_text()
