"""Whose results are whose: no input takes another's folder, and of DICOM nothing says whose it is."""

import csv
import json
import os
import signal
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from commands import coarse
from series_files import rewrite, write_series

from ravnet_bundle import segment
from ravnet_bundle.scripts.batch.pseudonyms import settle
from ravnet_bundle.scripts.batch.shards import Shard
from ravnet_bundle.scripts.cli import main
from ravnet_bundle.scripts.phantom import make_phantom, save_phantom
from ravnet_bundle.scripts.reading import find

# What a rule that looks for the header's own words in names lets through
TELLING = ("Wu_Li", "山田太郎", "王伟", "Ju\u0308rgen Mu\u0308ller", "Mueller_Juergen", "12.03.1956", "Bo")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("ravnet_bundle.scripts.inference.pipeline.Pipeline", lambda **overrides: coarse())


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(seed=1, shape=(40, 36, 8), spacing=(9, 9, 19))


@pytest.fixture
def twins(phantom, tmp_path) -> list[Path]:
    """Two CTs of one name, size and time."""
    files = [tmp_path / place / "x.nii" for place in "ab"]
    for file, image in zip(files, (phantom.image, np.flip(phantom.image, 2)), strict=True):
        file.parent.mkdir()
        nib.save(nib.Nifti1Image(image, phantom.affine), file)
        os.utime(file, (10**9, 10**9))
    return files


@pytest.fixture
def dry(monkeypatch, capsys):
    """The lines that a dry run prints, by stream."""
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)

    def run(*arguments) -> tuple[list[str], list[str]]:
        main(["segment", *map(str, arguments), "--dry-run"])
        told = capsys.readouterr()
        return told.out.splitlines(), told.err.splitlines()

    return run


def rows(output: Path) -> dict[str, dict[str, str]]:
    with open(output / "measures.csv", newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_a_second_input_of_the_same_name_gets_a_folder_of_its_own(twins, tmp_path):
    output = tmp_path / "out"
    told = [segment(file, output, resume=True, fast=True)[0] for file in (*twins, *twins)]
    assert [(one.name, one.status) for one in told] == [("x", "done"), ("b_x", "done"), ("x", "kept"), ("b_x", "kept")]
    assert {name: row["input"] for name, row in rows(output).items()} == {"x": "a/x.nii", "b_x": "b/x.nii"}
    assert json.loads((output / "b_x" / "measures.json").read_text())["input"] == "b/x.nii"
    both = segment([twins[1].parent, twins[0]], output, resume=True, fast=True)
    assert {one.source: (one.name, one.status) for one in both} == {
        str(twins[0]): ("x", "kept"),
        str(twins[1]): ("b_x", "kept"),
    }


def test_a_name_that_another_process_took_meanwhile_is_not_taken_from_it(twins, tmp_path, monkeypatch):
    output = tmp_path / "out"
    (first,) = segment(twins[0], output, fast=True)
    before = (output / "x" / "manifest.json").read_bytes()
    before_it = tmp_path / "elsewhere"  # where the other has not begun yet
    monkeypatch.setitem(segment.__globals__, "settle", lambda scans, _, *more: settle(scans, before_it, *more))
    (second,) = segment(twins[1], output, fast=True)
    assert first.name == "x" and second.name.startswith("x-") and second.status == "done"
    assert (output / "x" / "manifest.json").read_bytes() == before and len(rows(output)) == 2


def test_what_is_not_ours_is_passed_over_with_a_note(twins, tmp_path, caplog):
    output = tmp_path / "out"
    lookalike = '{"about": {}, "files": {"liver.nii.gz": 0}}'
    foreign = {"old": "{}", "list": "[1]", "empty": "", "deep": "[" * 10**5, "like": lookalike, "x": '{"about": 1}'}
    for name, manifest in foreign.items():
        (output / name).mkdir(parents=True)
        (output / name / "manifest.json").write_text(manifest)
        (output / name / "measures.json").write_text("")
    (outcome,) = segment(twins[0], output, fast=True)
    assert (outcome.name, outcome.status) == ("a_x", "done") and list(rows(output)) == ["a_x"]
    for name, manifest in foreign.items():
        assert [line for line in caplog.messages if line.startswith(f"{output / name}: not a result of ravnet segment")]
        assert (output / name / "manifest.json").read_text() == manifest


def test_nothing_of_a_dicom_path_is_kept_and_a_dry_run_prints_no_more(phantom, tmp_path, dry):
    for number, name in enumerate(TELLING):
        for file in write_series(phantom.image[..., :4], phantom.affine, tmp_path / "in" / name):
            rewrite(file, PatientName="Nobody", PatientID=str(number))
    with zipfile.ZipFile(tmp_path / "in" / "Li_Wu.zip", "w") as archive:
        for file in (tmp_path / "in" / "Bo").iterdir():
            archive.write(file, file.name)
    printed, errors = dry(tmp_path / "in", "-o", tmp_path / "out")
    assert len(printed) == len(TELLING) + 1 and errors == []
    assert all(line.startswith("ct-") for line in printed) and len({line.split(":")[0] for line in printed}) == 8
    assert not any(name in line for line in printed for name in (*TELLING, "Li_Wu", str(tmp_path)))
    assert not (tmp_path / "out").exists()
    named, _ = dry(tmp_path / "in", "-o", tmp_path / "out", "--no-anonymous")
    assert {"Wu_Li", "山田太郎", "Li_Wu", "12.03.1956"} < {line.split(":")[0] for line in named}


def test_a_hashed_name_is_the_same_in_one_folder_and_another_in_another(phantom, tmp_path, dry):
    for name in ("Wu_Li", "Bo"):
        write_series(phantom.image, phantom.affine, tmp_path / "in" / name)
    folder, output = tmp_path / "in" / "Wu_Li", tmp_path / "out"
    (first,) = segment(folder, output, fast=True)
    again = {one.source: one for one in segment(tmp_path / "in", output, fast=True, resume=True)}
    assert (again[str(folder)].name, again[str(folder)].status) == (first.name, "kept")
    assert {row["input"] for row in rows(output).values()} == set(rows(output))  # no path
    assert dry(folder, "-o", output)[0][0].startswith(f"{first.name}: ")
    (other,) = segment(folder, tmp_path / "other", fast=True)
    assert other.name.startswith("ct-") and other.name != first.name
    texts = [path.read_text() for path in output.rglob("*") if path.suffix in (".json", ".csv", ".html")]
    assert texts and not any("Wu_Li" in text or "phantom" in text for text in texts)


def test_a_salt_does_not_stay_where_nothing_was_written(phantom, tmp_path):
    for file in write_series(phantom.image, phantom.affine, tmp_path / "in"):
        rewrite(file, PixelData=b"\0\0")
    (outcome,) = segment(tmp_path / "in", tmp_path / "out", fast=True)
    assert outcome.status == "failed" and not (tmp_path / "out").exists()


def test_what_is_refused_within_a_zip_belongs_to_the_zips_own_shard(phantom, tmp_path):
    files = write_series(phantom.image, phantom.affine, tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for file in files:
            archive.write(file, file.name)
        archive.writestr("bad", b"\0" * 128 + b"DICM" + b"\xff" * 40)
    found = find([tmp_path / "study.zip"])
    assert [source for source, _ in found.refused] == [str(tmp_path / "study.zip")]
    assert sorted(len(Shard(index, 5).of(found).refused) for index in range(5)) == [0, 0, 0, 0, 1]


def test_results_keep_apart_what_one_folder_holds(phantom, tmp_path):
    """A NIfTI and a DICOM series of one name, and two series without numbers."""
    for place in ("one", "two"):
        write_series(phantom.image, phantom.affine, tmp_path / "in" / place)
    save_phantom(phantom, tmp_path / "in" / "one.nii.gz")
    for file in write_series(phantom.image, phantom.affine, tmp_path / "more"):
        rewrite(file, SeriesNumber=None)
        file.rename(tmp_path / "in" / "two" / f"B{file.name}")
    for file in (tmp_path / "in" / "two").iterdir():
        rewrite(file, SeriesNumber="")
    found = find([tmp_path / "in"]).scans
    assert len(found) == len({scan.name.casefold() for scan in found}) == 4
