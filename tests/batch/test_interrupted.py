"""`ravnet segment` stopped, killed, doubled or out of disk, and called again."""

import json
import os
import random
import resource
import signal
import time
from pathlib import Path

import itk
import numpy as np
import pytest
from commands import FILES, contents, debris, ravnet, start

from ravnet_bundle import segment
from ravnet_bundle.scripts.phantom import make_phantom, save_phantom

KILLS = int(os.environ.get("RAVNET_KILLS", "3"))


@pytest.fixture(scope="module")
def ct(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("ct") / "abdomen.nii.gz"
    save_phantom(make_phantom(seed=1, shape=(52, 48, 18), spacing=(7, 7, 12)), path)
    return path


def test_resume_keeps_what_is_whole_and_of_the_same_making_and_does_the_rest(ct, tmp_path):
    output = tmp_path / "out"

    def again(**settings):
        (outcome,) = segment(ct, output, resume=True, fast=True, **settings)
        return outcome.status

    assert again() == "done"
    before = contents(output)
    stamp = (output / "abdomen" / "liver.nii.gz").stat().st_mtime_ns
    assert again() == "kept"
    assert (output / "abdomen" / "liver.nii.gz").stat().st_mtime_ns == stamp
    assert again(probabilities=True) == "done"
    assert again() == "done"
    assert contents(output) == before  # the probabilities belonged to another run
    mask = output / "abdomen" / "liver.nii.gz"
    harmed = bytearray(mask.read_bytes())
    harmed[-1] ^= 1
    mask.write_bytes(harmed)
    assert again() == "done"
    assert contents(output) == before


def test_resume_sees_that_the_voxels_beside_a_header_were_replaced(tmp_path):
    phantom = make_phantom(seed=1, shape=(40, 36, 8), spacing=(9, 9, 19))
    save_phantom(phantom, tmp_path / "ct.nii")
    itk.imwrite(itk.imread(str(tmp_path / "ct.nii")), str(tmp_path / "ct.mhd"))

    def again():
        (outcome,) = segment(tmp_path / "ct.mhd", tmp_path / "out", resume=True, fast=True)
        return outcome.status

    assert (again(), again()) == ("done", "kept")
    (np.fromfile(tmp_path / "ct.raw", np.int16) + np.int16(1)).tofile(tmp_path / "ct.raw")
    assert (again(), again()) == ("done", "kept")
    (tmp_path / "ct.raw").unlink()
    assert again() == "failed"


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    """Studies enough to be interrupted, and the results of an undisturbed run."""
    folder = tmp_path_factory.mktemp("many")
    (folder / "in").mkdir()
    for seed in range(12 if KILLS > 3 else 5):
        phantom = make_phantom(seed=seed, shape=(40, 36, 12), spacing=(9, 9, 18))
        save_phantom(phantom, folder / "in" / f"{seed}.nii.gz")
    segment(folder / "in", folder / "out", fast=True)
    return folder / "in", contents(folder / "out")


def test_kill_9_at_random_moments_loses_nothing_and_doubles_nothing(many, tmp_path):
    source, expected = many
    output, generator = tmp_path / "out", random.Random(0)
    began = {}
    for _ in range(KILLS):
        process = start("segment", source, "-o", output, "--resume", "--fast")
        whole = {path.parent.name: path.stat().st_mtime_ns for path in output.glob("*/manifest.json")}
        assert began.items() <= whole.items()  # what was complete was not done again
        began = whole
        deadline = time.monotonic() + 120
        while not len(list(output.glob("*/manifest.json"))) > len(whole) and time.monotonic() < deadline:
            if process.poll() is not None:
                break
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 1))
        process.kill()
        process.communicate()
    ended = ravnet("segment", source, "-o", output, "--resume", "--fast", "--json")
    assert ended.returncode == 0
    outcomes = {outcome["name"]: outcome["status"] for outcome in json.loads(ended.stdout)}
    assert all(outcomes[name] == "kept" for name in began)
    assert contents(output) == expected
    assert debris(output) == []


def test_two_processes_share_the_work_and_do_each_study_once(many, tmp_path):
    source, expected = many
    both = [start("segment", source, "-o", tmp_path / "out", "--fast", "--json") for _ in range(2)]
    results = [process.communicate(timeout=600)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    statuses = [{outcome["name"]: outcome["status"] for outcome in json.loads(text)} for text in results]
    assert statuses[0].keys() == statuses[1].keys()
    for name in statuses[0]:
        assert {statuses[0][name], statuses[1][name]} == {"done", "kept"}, name
    assert contents(tmp_path / "out") == expected
    assert debris(tmp_path / "out") == []


def test_ctrl_c_leaves_nothing_half_written(many, tmp_path):
    source, _ = many
    output = tmp_path / "out"
    process = start("segment", source, "-o", output, "--fast")
    while not list(output.glob("*/manifest.json")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in errors and "interrupted" in errors
    assert debris(output) == []
    for folder in output.iterdir():
        assert folder.name == "measures.csv" or sorted(os.listdir(folder)) == FILES


def test_a_full_disk_is_one_line_per_study_and_leaves_nothing(ct, tmp_path):
    limit = 20_000  # bytes a file: the picture does not fit
    ended = ravnet(
        "segment",
        ct,
        "-o",
        tmp_path / "out",
        "--fast",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert ended.returncode == 1
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert "abdomen" in line and "File too large" in line
    assert not (tmp_path / "out").exists()


def test_studies_are_told_though_their_table_cannot_be_written(ct, tmp_path):
    table = tmp_path / "out" / "measures.csv"
    table.mkdir(parents=True)
    ended = ravnet("segment", ct, "-o", tmp_path / "out", "--fast")
    assert ended.returncode == 1
    assert ended.stdout.startswith("abdomen: ")
    assert ended.stderr.splitlines()[-1] == f"error: {table}: cannot be written: Is a directory."
    assert "Traceback" not in ended.stderr and debris(tmp_path / "out") == []
