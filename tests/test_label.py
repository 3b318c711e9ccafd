"""The bundle as MONAI Label and MONAI Deploy use it, without these: `make test-label`, `make test-deploy` run them."""

import copy
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, run
from monai.transforms import LoadImaged, SaveImaged

from scripts.networks import RAVNet
from scripts.phantom import make_decathlon, make_phantom, save_phantom
from scripts.reading import load

BUNDLE = Path(__file__).resolve().parents[1] / "ravnet_bundle"


def config(name: str) -> dict:
    return json.loads((BUNDLE / "configs" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def ct(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("studies") / "ct.nii.gz"
    save_phantom(make_phantom(shape=(128, 128, 8), spacing=(3, 3, 10)), file)
    return file


@pytest.fixture(scope="module")
def own(ct, tmp_path_factory) -> nib.Nifti1Image:
    """What the bundle itself writes."""
    output = tmp_path_factory.mktemp("own")
    flow = ConfigWorkflow(
        str(BUNDLE / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(BUNDLE),
        dataset_dir=str(ct),
        output_dir=str(output),
        device="cpu",
    )
    flow.initialize()
    flow.run()
    return nib.load(output / "ct_liver.nii.gz")


def hosted(item: dict) -> torch.Tensor:
    """Infers as both hosts do: by the config's parts, a network of their own making, and no SaveImaged."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "inference.json"))
    parser.config.update({"bundle_root": str(BUNDLE), "device": "cpu"})
    network = copy.deepcopy(parser.get_parsed_content("network_def", instantiate=True)).to("cpu")
    network.load_state_dict(torch.load(BUNDLE / "models" / "model.pt", weights_only=True), strict=True)
    network.eval()
    for transform in parser.get_parsed_content("preprocessing", instantiate=True).transforms:
        item = transform(item)
    with torch.no_grad():
        item["pred"] = parser.get_parsed_content("inferer", instantiate=True)(item["image"][None], network)[0]
    for transform in parser.get_parsed_content("postprocessing", instantiate=True).transforms:
        if not isinstance(transform, SaveImaged):
            item = transform(item)
    return item["pred"]


def test_in_monai_label_with_a_string_as_image_path_the_mask_is_the_bundles_own(ct, own):
    mask = hosted({"model": "ravnet", "device": "cpu", "image": str(ct), "image_path": str(ct)})
    assert np.asarray(own.dataobj).any()
    assert np.array_equal(mask[0], own.dataobj)
    assert np.allclose(mask.affine, own.affine)


def test_in_monai_deploy_with_a_volume_that_is_loaded_already_the_mask_is_the_bundles_own(ct, own):
    mask = hosted({"image": load(ct)})
    assert np.array_equal(mask[0], own.dataobj)


def test_in_monai_deploy_a_torchscript_network_rounds_to_bfloat16_as_the_network_itself_does():
    network = RAVNet(in_channels=3, width=32, lstm_ratio=0.5).eval()
    network.load_state_dict(torch.load(BUNDLE / "models" / "model.pt", weights_only=True))
    script = torch.jit.script(network)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(script(x), network(x))


def test_monai_label_finds_what_it_looks_for():
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "inference.json"))
    parser.config["bundle_root"] = str(BUNDLE)
    loader = parser.get_parsed_content("preprocessing", instantiate=True).transforms[0]
    assert isinstance(loader, LoadImaged)  # what it hands the path to
    assert [file.name for file in (BUNDLE / "models").glob("*.pt")] == ["model.pt"]  # it offers all that are there
    outputs = config("metadata")["network_data_format"]["outputs"]
    (pred,) = outputs.values()
    labels = {name: int(value) for value, name in pred["channel_def"].items() if name != "background"}
    assert labels == {"liver": 1}
    train = ConfigParser(config("train"))
    shown = train.get_parsed_content("displayable_configs")  # in Slicer's panel, with what the training has without it
    assert shown == {"learning_rate": 0.001, "slices_per_epoch": 800}
    assert all(train.get_parsed_content(name) == value for name, value in shown.items())
    handlers = config("train")["train"]["handlers"]
    assert all(isinstance(handler, dict) and handler["_target_"] != "CheckpointLoader" for handler in handlers)


def test_monai_labels_dropout_for_epistemic_scoring_makes_each_look_another():
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "inference.json"))
    parser.config.update({"bundle_root": str(BUNDLE)})
    parser["network_def"]["dropout"] = 0.2
    network = parser.get_parsed_content("network_def", instantiate=True).train()
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert not torch.equal(network(x), network(x))


def test_trained_from_monai_label_or_by_slicers_button_the_weights_go_on_and_each_training_writes_them(tmp_path):
    """There is no folder of data: the scans are Label's. Slicer's Train button sends an empty run id."""
    make_decathlon(tmp_path / "data", 3, 0, 0, shape=(64, 64, 8), spacing=(6, 6, 25))
    parts = [sorted((tmp_path / "data" / name).iterdir()) for name in ("imagesTr", "labelsTr")]
    cases = [{"image": str(image), "label": str(label)} for image, label in zip(*parts)]
    file = tmp_path / "models" / "model.pt"
    file.parent.mkdir()
    torch.save(RAVNet(in_channels=3, width=8, lstm_ratio=0.5).state_dict(), file)

    def train(epochs: int, run_id: str, learning_rate: float, output: Path) -> tuple[dict, dict]:
        before = torch.load(file, weights_only=True)
        loader = {"_target_": "CheckpointLoader", "load_path": str(file), "load_dict": {"model": "$@network"}}
        overrides = {  # MONAI Label's
            "bundle_root": str(BUNDLE),
            "train#trainer#max_epochs": epochs,
            "train#dataset#data": cases[:2],
            "validate#dataset#data": cases[2:],
            "device": "cpu",
            "train#handlers": [{**loader, "strict": False}, *config("train")["train"]["handlers"]],
            "displayable_configs": {"learning_rate": learning_rate, "slices_per_epoch": 8},
        }
        small = {"network_def#width": 8, "patch_size": [32, 32], "num_workers": 0, "phantom_share": 0}
        folders = {"ckpt_dir": str(file.parent), "output_dir": str(output), "dataset_dir": str(tmp_path / "nowhere")}
        run(
            run_id=run_id,
            init_id=None,
            final_id=None,
            meta_file=str(BUNDLE / "configs" / "metadata.json"),
            config_file=str(BUNDLE / "configs" / "train.json"),
            **{**overrides, **small, **folders},
        )
        return before, torch.load(file, weights_only=True)

    names = [name for name, _ in RAVNet(in_channels=3, width=8, lstm_ratio=0.5).named_parameters()]
    before, after = train(1, "run", 0.0, tmp_path / "still")
    for name in names:
        torch.testing.assert_close(after[name], before[name], rtol=1e-4, atol=1e-6)
    for run_id in ("run", ""):
        before, after = train(1, run_id, 0.001, tmp_path / "runs")
        assert any(not torch.equal(before[name], after[name]) for name in names)
