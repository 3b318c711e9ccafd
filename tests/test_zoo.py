"""What the Model Zoo's CI asks of the folder `ravnet_bundle/` before anything runs: its files, and what they say."""

import copy
import hashlib
import json
import os
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser, verify_metadata
from packaging.requirements import Requirement
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which comes with pytest

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "ravnet_bundle"
SCHEMA = Path(__file__).parent / "metadata_schema.json"
TESTED = {"python_version": "3.11"}  # the Python of the environment that the metadata describe
METADATA = json.loads((BUNDLE / "configs" / "metadata.json").read_text())
HEADINGS = [
    "Model Description",
    "Data and Preprocessing",
    "Performance",
    "Additional Usage Steps",
    "System Configuration",
    "Limitations",
    "Citation",
    "References",
    "License",
]


KEYS = {
    "inference": """imports bundle_root image_key dataset_dir datalist output_dir output_ext output_dtype output_postfix
        separate_folder load_pretrain device network_def network preprocessing dataset dataloader inferer postprocessing
        handlers checkpointloader evaluator initialize run""",
    "train": """bundle_root ckpt_dir output_dir dataset_dir device network_def network loss optimizer val_interval
        train#deterministic_transforms train#random_transforms train#preprocessing train#dataset train#dataset#data
        train#dataloader train#inferer train#postprocessing train#handlers train#key_metric train#trainer
        train#trainer#max_epochs validate#preprocessing validate#dataset validate#dataset#data validate#dataloader
        validate#inferer validate#postprocessing validate#handlers validate#key_metric validate#additional_metrics
        validate#evaluator initialize run""",
}


def pins(environment=None) -> dict[str, str]:
    """The tested environment, of `pyproject.toml`: package -> exact version."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["tested"]
    found = [Requirement(line) for line in listed]
    chosen = [one for one in found if one.marker is None or one.marker.evaluate(environment)]
    assert len({one.name for one in chosen}) == len(chosen)
    assert all(len(one.specifier) == 1 and str(one.specifier).startswith("==") for one in chosen)
    return {one.name: str(one.specifier)[2:] for one in chosen}


def published() -> list[Path]:
    """The bundle's files, without what its commands write beside them."""
    parts = [BUNDLE / name for name in ("LICENSE", "__init__.py", "large_files.yml", "models/model.pt")]
    for name in ("configs", "docs", "scripts"):
        parts += (path for path in (BUNDLE / name).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [path for path in parts if path.exists()]


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE",
        "models/model.pt",
        "docs/README.md",
        "docs/data_license.txt",
        "scripts/__init__.py",
        "configs/logging.conf",
        *(
            f"configs/{name}.json"
            for name in (
                "metadata",
                "train",
                "evaluate",
                "inference",
                "multi_gpu_train",
                "multi_gpu_evaluate",
                "inference_trt",
            )
        ),
    ],
)
def test_the_zoos_files_are_there(name):
    assert (BUNDLE / name).stat().st_size > 0


def test_every_config_is_json():
    assert {path.suffix for path in (BUNDLE / "configs").iterdir()} == {".json", ".conf"}
    for path in (BUNDLE / "configs").glob("*.json"):
        assert isinstance(json.loads(path.read_text()), dict), path


@pytest.mark.parametrize("name", KEYS)
def test_a_config_has_the_keys_that_the_zoos_users_override(name):
    parser = ConfigParser(ConfigParser.load_config_file(BUNDLE / "configs" / f"{name}.json"))
    assert [key for key in KEYS[name].split() if key not in parser] == []


def test_the_model_card_has_the_zoos_headings_in_their_order():
    text = (BUNDLE / "docs" / "README.md").read_text()
    assert [name for name in re.findall(r"^# (.+)$", text, re.MULTILINE) if name in HEADINGS] == HEADINGS


def test_the_model_card_names_the_shipped_weights():
    digest = hashlib.sha256((BUNDLE / "models" / "model.pt").read_bytes()).hexdigest()
    assert digest in (BUNDLE / "docs" / "README.md").read_text()


def test_no_file_needs_a_large_files_yml():
    """Above 25 MB the Zoo wants a file hosted elsewhere and listed in `large_files.yml`; ours are all below."""
    files = published()
    assert len(files) > 50
    assert [path for path in files if path.stat().st_size > 25e6] == []
    assert not (BUNDLE / "large_files.yml").exists()


def test_the_metadata_keep_the_published_schema(tmp_path):
    """As the Zoo's CI looks at it: MONAI fetches the schema from the address that the metadata name."""
    try:
        verify_metadata(meta_file=str(BUNDLE / "configs" / "metadata.json"), filepath=tmp_path / "schema.json")
    except OSError as error:
        pytest.skip(f"{METADATA['schema']} cannot be reached: {error}")


def test_the_metadata_keep_our_schema():
    """Stricter than the published one, and at hand without a network."""
    verify_metadata(meta_file=str(BUNDLE / "configs" / "metadata.json"), filepath=SCHEMA)


def at(metadata, keys):
    *way, last = keys.split("/")
    for key in way:
        metadata = metadata[key]
    return metadata, last


@pytest.mark.parametrize(
    "keys",
    [
        "schema",
        "version",
        "monai_version",
        "pytorch_version",
        "numpy_version",
        "required_packages_version",
        "task",
        "description",
        "authors",
        "copyright",
        "network_data_format",
        "network_data_format/inputs",
        "network_data_format/inputs/image",
        "network_data_format/outputs/pred",
        *(
            f"network_data_format/outputs/pred/{key}"
            for key in METADATA["network_data_format"]["outputs"]["pred"]  # each of them is asked for
        ),
    ],
)
def test_metadata_that_lack_a_key_are_refused(keys, tmp_path):
    metadata = copy.deepcopy(METADATA)
    part, last = at(metadata, keys)
    del part[last]
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="is a required property|must provide the `schema` field"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=SCHEMA)


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("version", 2),
        ("changelog", ["first release"]),
        ("monai_version", ">=1.6"),
        ("required_packages_version", {"nibabel": "latest"}),
        ("optional_packages_version", {"nibabel": "5.4.2"}),
        ("eval_metrics", {"dice": "good"}),
        ("references", "arXiv"),
        ("network_data_format/outputs/label", {}),
        ("network_data_format/inputs/image/num_channels", "1"),
        ("network_data_format/inputs/image/spatial_shape", ["any", "any"]),
        ("network_data_format/outputs/pred/dtype", "float"),
        ("network_data_format/outputs/pred/is_patch_data", "false"),
        ("network_data_format/outputs/pred/channel_def", {"liver": "0"}),
    ],
)
def test_metadata_with_a_wrong_value_are_refused(keys, value, tmp_path):
    metadata = copy.deepcopy(METADATA)
    part, last = at(metadata, keys)
    part[last] = value
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(ValueError, match="Failed validating"):
        verify_metadata(meta_file=str(tmp_path / "metadata.json"), filepath=SCHEMA)


def test_the_version_is_the_changelogs_last_and_the_packages():
    assert METADATA["version"] == max(METADATA["changelog"], key=Version)
    assert f"version = {METADATA['version']}\n" in (ROOT / "setup.cfg").read_text()
    for key in ("name", "intended_use", "data_source", "data_type", "image_classes", "label_classes", "pred_classes"):
        assert METADATA[key]
    assert METADATA["references"] and METADATA["supported_apps"] and "eval_metrics" in METADATA


def test_the_metadata_pin_the_tested_environment_as_pyproject_does():
    pinned = {
        "monai": METADATA["monai_version"],
        "numpy": METADATA["numpy_version"],
        **METADATA["required_packages_version"],
    }
    assert pinned == pins(TESTED)
    assert f"TORCH ?= torch=={METADATA['pytorch_version']} " in (ROOT / "Makefile").read_text()


@pytest.mark.skipif("CI" not in os.environ, reason="what a contributor has installed is his own affair")
def test_what_is_installed_is_what_is_pinned():
    expected = {**pins(), "torch": METADATA["pytorch_version"]}
    assert {name: Version(version(name)).public for name in expected} == expected


def test_the_weights_are_plain_tensors():
    weights = torch.load(BUNDLE / "models" / "model.pt", weights_only=True)
    assert {type(value) for value in weights.values()} == {torch.Tensor}
