"""The command line `ravnet`: help, usage errors, what it prints, and what it loads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import COMMAND, ROOT, ravnet

from ravnet_bundle.scripts.batch.shards import Shard
from ravnet_bundle.scripts.phantom import make_phantom, save_phantom


@pytest.fixture(scope="module")
def ct(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ct") / "abdomen.nii.gz"
    save_phantom(make_phantom(seed=1, shape=(40, 36, 12), spacing=(9, 9, 18)), path)
    return path


@pytest.mark.parametrize("command", [[], ["segment"]], ids=["ravnet", "segment"])
def test_help_fits_on_a_screen_and_loads_no_large_library(command):
    """It is there at once: what takes seconds to import waits until a study is to be done."""
    code = (
        "import sys\n"
        "from ravnet_bundle.scripts.cli import main\n"
        "try: main([*sys.argv[1:], '--help'])\n"
        "finally: print(*sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, *command]
    environment = {**os.environ, "COLUMNS": "120"}
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0
    large = {"torch", "monai", "numpy", "scipy", "skimage", "itk", "pydicom", "nibabel", "matplotlib", "distributed"}
    loaded = set(ended.stderr.split())
    assert "argparse" in loaded and not loaded & large
    assert len(ended.stdout.splitlines()) <= 40
    assert "research use only" in ended.stdout


def test_the_version_names_the_weights():
    ended = ravnet("--version")
    assert ended.returncode == 0
    facts = dict(line.split(" ", 1) for line in ended.stdout.splitlines())
    assert facts.keys() == {"version", "weights", "torch", "monai"} and len(facts["weights"]) == 64


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["segment"],
        ["segment", "CT"],
        ["segment", "CT", "-o", "OUT", "--nonsense"],
        ["segment", "CT", "-o", "OUT", "--height", "170"],
        ["segment", "CT", "-o", "OUT", "--height", "170", "--weight", "0"],
        ["segment", "CT", "-o", "OUT", "--height", "1.7", "--weight", "70"],
        ["segment", "CT", "-o", "OUT", "--bsa", "17"],
        ["segment", "CT", "-o", "OUT", "--threads", "0"],
        ["segment", "CT", "-o", "OUT", "--device", "nonsense"],
        ["segment", "CT", "-o", "OUT", "--shard", "2/2"],
        ["segment", "CT", "-o", "OUT", "--shard", "1"],
        ["segment", "CT", "-o", "OUT", "--shard", "1/0", "--dry-run"],
        ["segment", "CT", "-o", "OUT", "--workers", "0"],
        ["segment", "CT", "-o", "OUT", "--quiet", "--verbose"],
    ],
    ids=lambda arguments: " ".join(arguments) or "nothing",
)
def test_a_command_that_cannot_be_meant_is_a_usage_error(arguments, ct, tmp_path):
    names = {"CT": str(ct), "OUT": str(tmp_path / "out")}
    ended = ravnet(*(names.get(argument, argument) for argument in arguments))
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert not arguments or "error: " in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_an_input_that_is_not_there_is_one_line_and_exit_code_1(tmp_path):
    ended = ravnet("segment", tmp_path / "nothing.nii.gz", "-o", tmp_path / "out", "--quiet")
    assert ended.returncode == 1
    assert ended.stderr.splitlines() == [f"error: {tmp_path / 'nothing.nii.gz'}: no such file or folder."]
    assert ended.stdout == "" and not (tmp_path / "out").exists()


def test_a_dry_run_reads_and_writes_nothing(ct, tmp_path):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(ct.read_bytes()[:500])
    ended = ravnet("segment", ct, bad, "-o", tmp_path / "out", "--dry-run")
    assert ended.returncode == 1
    assert ended.stdout.splitlines() == ["abdomen: 40 x 36 x 12 voxels of 9 x 9 x 18 mm"]
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {bad}: ")
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_a_shard_tells_its_studies_alone(ct, tmp_path):
    names = [f"ct_{number}" for number in range(8)]
    for name in names:
        (tmp_path / f"{name}.nii.gz").write_bytes(ct.read_bytes())
    ended = ravnet("segment", tmp_path, "-o", tmp_path / "out", "--dry-run", "--shard", "1/2")
    assert ended.returncode == 0
    told = [line.split(":")[0] for line in ended.stdout.splitlines()]
    assert told == [name for name in names if Shard(1, 2).holds(name)] and 0 < len(told) < 8


def test_the_folder_that_one_is_in_can_be_the_output(ct, tmp_path):
    """It is empty, and the command tries whether it can be written to."""
    command = [*COMMAND, "segment", str(ct), "-o", ".", "--fast"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert sorted(os.listdir(tmp_path)) == ["abdomen", "measures.csv"]


def test_json_is_all_that_is_printed(ct, tmp_path):
    ended = ravnet("segment", ct, tmp_path / "none", "-o", tmp_path / "out", "--json", "--fast", "--threads", "1")
    assert ended.returncode == 1
    done, failed = sorted(json.loads(ended.stdout), key=lambda outcome: outcome["status"])
    assert (done["name"], done["status"], failed["status"]) == ("abdomen", "done", "failed")
    assert done["volume_ml"] > 0 and done["verdict"] in ("ok", "review", "reject")
    assert failed["error"] and ended.stderr == f"error: {failed['error']}\n"


def test_one_study_is_one_line(ct, tmp_path):
    ended = ravnet("segment", ct, "-o", tmp_path / "out", "--fast")
    assert ended.returncode == 0
    study, summary = ended.stdout.splitlines()
    assert study.startswith("abdomen: ") and " ml, " in study
    assert summary == f"1 of 1 in {tmp_path / 'out'}; for research use only"
