"""The shipped network outside PyTorch's Python: TorchScript, ONNX, and what TensorRT makes of it."""

import copy
import inspect
import json
from pathlib import Path

import monai.networks
import nibabel as nib
import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from monai.bundle import ckpt_export, create_workflow, load, onnx_export
from monai.networks.utils import add_casts_around_norms

from scripts.phantom import make_phantom, save_phantom

BUNDLE = Path(__file__).resolve().parents[1] / "ravnet_bundle"
CONFIGS = BUNDLE / "configs"
EXPORTS = ("script", "trace", "onnx")


def workflow(*names, **overrides):
    return create_workflow(
        config_file=[str(CONFIGS / f"{name}.json") for name in names],
        workflow_type="infer",
        bundle_root=str(BUNDLE),
        device="cpu",
        logging_file=False,
        **overrides,
    )


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return load("ravnet_bundle", bundle_dir=BUNDLE.parent, args_file={"bundle_root": str(BUNDLE)}, device="cpu").eval()


@pytest.fixture(scope="module", params=EXPORTS)
def exported(request, tmp_path_factory):
    """The export's name and its function, `(B, 3, H, W) -> (B, 1, H, W)`, from a file that MONAI's command wrote."""
    file = str(tmp_path_factory.mktemp(request.param) / f"model.{'onnx' if request.param == 'onnx' else 'ts'}")
    common = {
        "net_id": "network_def",
        "filepath": file,
        "ckpt_file": str(BUNDLE / "models" / "model.pt"),
        "meta_file": str(CONFIGS / "metadata.json"),
        "config_file": str(CONFIGS / "inference.json"),
        "bundle_root": str(BUNDLE),
    }
    if request.param == "onnx":
        onnx_export(**common, args_file=str(CONFIGS / "onnx.json"))
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        return request.param, lambda x: torch.from_numpy(session.run(["pred"], {"image": x.numpy()})[0])
    trace = {"use_trace": True, "input_shape": [1, 3, 64, 96]} if request.param == "trace" else {}
    ckpt_export(**common, **trace)
    return request.param, torch.jit.load(file).eval()


@pytest.fixture(scope="module", params=["phantom", "patient"])
def slices(request, tmp_path_factory) -> torch.Tensor:
    """Three slices with liver as the network sees them, `(3, 3, H, W)` in 0..1, of a phantom and of a real CT."""
    if request.param == "patient":
        data = request.getfixturevalue("data_dir") / "totalseg_example"
        image, mask = data / "ct.nii.gz", nib.load(data / "liver_by_model.nii.gz").get_fdata()
    else:
        image = tmp_path_factory.mktemp("phantom") / "ct.nii.gz"
        phantom = make_phantom(seed=2, shape=(128, 112, 24), spacing=(3, 3, 6), axcodes="RAS")
        save_phantom(phantom, image)
        mask = phantom.label
    inference = workflow("inference")
    seen = inference.preprocessing({"image": str(image)})["image"].as_tensor()
    middle = int(np.median(np.flatnonzero(mask.any(axis=(0, 1)))))
    chosen = inference.inferer.stacked(seen, range(middle - 1, middle + 2))
    assert len(chosen) == 3 and chosen.std() > 0.1
    return F.pad(chosen, (0, -chosen.shape[3] % 16, 0, -chosen.shape[2] % 16)).contiguous()


@torch.inference_mode()
def test_an_export_gives_the_logits_of_pytorch_in_float32(exported, slices, network):
    name, function = exported
    expected, result = network(slices), function(slices)
    assert expected.max() > 3  # there is liver
    difference = (result - expected).abs().max().item()
    print(f"{name}: greatest difference of a logit {difference:.1e} on {tuple(slices.shape)}")
    assert result.shape == expected.shape and result.dtype == torch.float32
    assert difference < 1e-3
    assert torch.equal((result > 0)[expected.abs() > 1e-3], (expected > 0)[expected.abs() > 1e-3])


def test_a_torchscript_file_carries_its_metadata_and_config(network, tmp_path):
    file = tmp_path / "model.ts"
    ckpt_export(
        net_id="network_def",
        filepath=str(file),
        ckpt_file=str(BUNDLE / "models" / "model.pt"),
        config_file=str(CONFIGS / "inference.json"),
        bundle_root=str(BUNDLE),
    )
    _, metadata, extra = monai.data.load_net_with_metadata(str(file), more_extra_files=["inference.json"])
    given = json.loads((CONFIGS / "metadata.json").read_text())
    assert {key: metadata[key] for key in given} == given
    assert json.loads(extra["inference.json"]) == json.loads((CONFIGS / "inference.json").read_text())


@torch.inference_mode()
def test_the_casts_that_tensorrt_gets_change_nothing(network):
    """`trt_compile` wraps every normalisation in a cast to float32 before it exports the network."""
    wrapped, x = add_casts_around_norms(copy.deepcopy(network)), torch.rand(2, 3, 48, 64)
    torch.testing.assert_close(wrapped(x), network(x), rtol=1e-4, atol=1e-4)


def test_the_tensorrt_overlay_wraps_the_network_and_segments_the_same(tmp_path, monkeypatch):
    """Without TensorRT `trt_compile` leaves the network as it is: what the overlay changes is what it is given."""
    calls, real = [], monai.networks.trt_compile
    monkeypatch.setattr(
        monai.networks, "trt_compile", lambda *args, **more: calls.append((args, more)) or real(*args, **more)
    )
    save_phantom(make_phantom(seed=2, shape=(96, 96, 12), spacing=(4, 4, 12)), tmp_path / "ct.nii.gz")
    masks = []
    for names in (("inference",), ("inference", "inference_trt")):
        output = tmp_path / names[-1]
        plain = {"amp": False, "certain": 0, "dataset_dir": str(tmp_path / "ct.nii.gz"), "output_dir": str(output)}
        inference = workflow(*names, **plain)
        assert inference.check_properties() == []
        inference.run()
        masks.append(np.asarray(nib.load(output / "ct_liver.nii.gz").dataobj))
    assert masks[0].any() and np.array_equal(*masks)
    ((arguments, more),) = calls
    network, path = arguments
    assert path == str(BUNDLE / "models" / "model.pt")
    (profile,) = more["args"]["input_profiles"]
    assert list(profile) == list(inspect.signature(network.forward).parameters)
    least, best, most = profile["x"]
    batch = inference.parser.get_parsed_content("slices_per_batch")
    assert least == [1, 3, 16, 16] and best == [batch, 3, 256, 256] and most == [batch, 3, 512, 512]
    assert more["args"]["precision"] == "fp32"  # the channel attention's energies are beyond float16's 65504
