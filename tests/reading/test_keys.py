"""Keys that nothing reads: MONAI would take them silently, as `--epochs 3` beside 750 epochs of `max_epochs`."""

import sys
from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow, run

BUNDLE = Path(__file__).resolve().parents[2] / "ravnet_bundle"


def configs(names: str) -> list[str]:
    return [str(BUNDLE / "configs" / f"{name}.json") for name in names.split("+")]


@pytest.mark.parametrize(
    ("names", "key", "value", "meant"),
    [
        ("train", "epochs", 3, "; did you mean max_epochs?"),
        ("train", "train#max_epochs", 3, "; did you mean max_epochs?"),
        ("train", "labels", ["a.nii.gz"], "."),
        ("train", "weights", "model.pt", "."),  # finetune.json's
        ("train+evaluate", "images", "$sorted(glob.glob('*.nii.gz'))", "; did you mean image_steps?"),
        ("inference", "images", "$sorted(glob.glob('*.nii.gz'))", "."),
        ("compare", "epochs", 3, "."),
    ],
)
def test_a_key_that_nothing_reads_ends_in_one_line(names, key, value, meant, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    folders = {"bundle_root": str(BUNDLE), "dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out")}
    with pytest.raises(RuntimeError) as raised:
        run(config_file=configs(names), **folders, **{key: value})
    capsys.readouterr()
    sys.excepthook(raised.type, raised.value, raised.tb)
    (line,) = capsys.readouterr().err.splitlines()
    assert (
        line == f"error: nothing reads the key {key}{meant} The keys are those of configs/{names.split('+')[0]}.json."
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("names", "overrides"),
    [
        ("inference", {}),
        ("inference+multi_gpu_inference", {}),
        ("inference+inference_trt", {}),
        ("inference", {"tracking": "mlflow"}),
        ("compare", {"budget": 8, "tracking": "mlflow"}),
        ("train+federated", {"run_name": "a client's"}),  # which MONAI's client adds
        ("train", {"tracking": "mlflow", "run_name": "first"}),
        ("train+paper+bce", {"patch_size": [64, 64]}),  # which the paper's whole slices do not use
        ("train+gpu", {}),
        ("train+finetune", {"weights": "model.pt"}),
        ("train+finetune+multi_gpu_train", {}),
        ("train+federated", {}),
        ("train+evaluate", {"validate#dataset#cache_rate": 0.0, "split": "validation"}),
        ("train+finetune+evaluate+multi_gpu_evaluate", {"weights": "model.pt"}),
        ("train", {"steps": ["$@train#trainer.run()"], "run_id": "steps"}),  # a user's own run
        ("train", {"mine": {"width": 8}, "network_def#width": "@mine#width"}),
        (
            "train",
            {"displayable_configs": {"learning_rate": 0.1, "slices_per_epoch": 8}, "run_id": ""},
        ),  # MONAI Label's
    ],
)
def test_what_the_bundles_own_configs_and_overrides_hold_is_no_mistake(names, overrides, tmp_path):
    folders = {"bundle_root": str(BUNDLE), "output_dir": str(tmp_path / "out")}
    workflow = ConfigWorkflow(configs(names), init_id="unread_keys", logging_file=False, **folders, **overrides)
    assert workflow.initialize() == [None]


def test_a_training_without_tensorboard_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorboard"]:
        monkeypatch.delitem(sys.modules, name)
    hidden = type("Hidden", (), {"find_spec": staticmethod(_missing)})()
    monkeypatch.setattr(sys, "meta_path", [hidden, *sys.meta_path])
    with pytest.raises(Exception) as raised:  # noqa: B017
        run(config_file=configs("train"), bundle_root=str(BUNDLE), output_dir=str(tmp_path / "out"))
    capsys.readouterr()
    sys.excepthook(raised.type, raised.value, raised.tb)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "error: tensorboard is not installed: pip install 'ravnet-bundle[train]'."


def _missing(name, path=None, target=None):
    if name.split(".")[0] == "tensorboard":
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
