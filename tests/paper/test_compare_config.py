"""configs/compare.json: what it names, what it refuses, and networks that fail."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_comparing import BUNDLE, CONFIG, SMALL, compare, phantoms, rows

from scripts.paper.published import PUBLISHED
from scripts.paper.rivals import NETWORKS

__all__ = ["phantoms"]  # a fixture


def test_compare_json_names_networks_that_there_are_and_recipes_that_it_ships():
    config = json.loads(Path(CONFIG).read_text())
    known = set(NETWORKS) | set(config["variants"])
    assert {name for part in config["experiments"] for name in part["networks"]} <= known
    assert {variant.get("of", name) for name, variant in config["variants"].items()} <= set(NETWORKS)
    assert set(PUBLISHED) <= known
    for recipe in [config["recipe"], *(variant.get("recipe", []) for variant in config["variants"].values())]:
        assert all((BUNDLE / "configs" / f"{name}.json").exists() for name in recipe)


def test_the_papers_recipe_keeps_its_constant_rate(phantoms, tmp_path):
    variants = json.loads(Path(CONFIG).read_text())["variants"]
    name = "RA V-Net, paper's recipe"
    variants[name]["settings"] = {"train#dataset#size": SMALL["patch_size"]}
    compare(phantoms, tmp_path, [name], budget=16, variants=variants, experiments=[{"networks": [name], "folds": [0]}])
    assert [row["network"] for row in rows(tmp_path / "runs.csv")] == [name]


def test_an_unknown_network_ends_the_command_in_one_line(phantoms, tmp_path):
    command = [sys.executable, "-m", "monai.bundle", "run", "comparing", "--config_file", CONFIG]
    command += ["--bundle_root", str(BUNDLE), "--dataset_dir", str(phantoms), "--output_dir", str(tmp_path / "out")]
    done = subprocess.run([*command, "--networks", "['W-Net']"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("comparing: networks: no network is named W-Net: there are U-Net, ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"budget": 0}, "budget 0 is less than an epoch of 16 slices"),
        ({"budget": "abc"}, "budget must be a whole number, got 'abc'"),
        ({"settings": {"slices_per_epoch": 16}}, "settings lacks val_interval"),
        ({"recipe": ["mine"]}, "there is no mine.json in"),
        ({"recipe": "mine"}, "there is no mine.json in"),
        ({"experiments": []}, "experiments lists no run"),
        ({"experiments": [{"networks": ["V-Net"]}]}, "experiments: no network is named V-Net: there are U-Net, "),
        ({"experiments": [{"networks": ["U-Net"], "fold": [0]}]}, "experiments: no key is named fold: there are"),
        ({"variants": {"Mine": {"of": "V-Net"}}}, "variants: no network is named V-Net: there are U-Net, "),
        ({"variants": {"Mine": {"of": "U-Net", "prior": 0.1}}}, "variants: no key is named prior: there are of, "),
    ],
)
def test_wrong_settings_are_refused_in_one_line_before_anything_is_written(changed, said, phantoms, tmp_path):
    with pytest.raises(SystemExit) as refused:
        compare(phantoms, tmp_path / "out", ["RA V-Net"], **changed)
    assert said in str(refused.value) and "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_network_that_fails_is_named_and_the_others_go_on(phantoms, tmp_path):
    with pytest.raises(SystemExit) as ended:
        compare(phantoms, tmp_path, ["SA-UNet", "CS2-Net"], scale=0.09375, budget=16)
    said = str(ended.value)
    assert said.startswith("comparing: failed: SA-UNet (scale must leave SA-UNet a whole number") and "\n" not in said
    assert "SA-UNet: scale must leave" in (tmp_path / "tables.md").read_text()
    assert {row["network"] for row in rows(tmp_path / "runs.csv")} == {"CS2-Net"}
