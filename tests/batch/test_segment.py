"""Studies in, results out, through `ravnet_bundle.segment` and the command line `ravnet segment`."""

import csv
import json
import logging
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from commands import BUNDLE, FILES, contents, debris, ravnet
from hostile import CASES
from hostile.case import CODES
from monai.bundle import run
from series_files import write_series

from ravnet_bundle import segment
from ravnet_bundle.scripts.inference.pipeline import Pipeline
from ravnet_bundle.scripts.phantom import make_phantom, save_phantom
from ravnet_bundle.scripts.reading import load
from ravnet_bundle.scripts.writing import complete

SMALL = {"shape": (52, 48, 18), "spacing": (7, 7, 12)}
PATIENT = {
    "PatientName": "Zyxwv^Quillon",
    "PatientID": "MRN-4711-0815",
    "StudyDate": "20210405",
    "AccessionNumber": "ACC998877",
}


@pytest.fixture(scope="module")
def cts(tmp_path_factory) -> Path:
    """Three studies: a NIfTI abdomen, a NIfTI pelvis, and a DICOM abdomen of a named patient."""
    folder = tmp_path_factory.mktemp("cts")
    save_phantom(make_phantom(seed=1, **SMALL), folder / "abdomen.nii.gz")
    save_phantom(make_phantom(seed=1, region="pelvis", **SMALL), folder / "pelvis.nii.gz")
    phantom = make_phantom(seed=2, axcodes="LPS", **SMALL)
    write_series(phantom.image, phantom.affine, folder / "zyxwv-quillon_2021-04-05")
    for file in (folder / "zyxwv-quillon_2021-04-05").iterdir():
        slice_ = pydicom.dcmread(file)
        for tag, value in PATIENT.items():
            setattr(slice_, tag, value)
        slice_.save_as(file)
    return folder


@pytest.fixture(scope="module")
def done(cts, tmp_path_factory):
    """All three, with every file that can be asked for."""
    output = tmp_path_factory.mktemp("done") / "out"
    return segment(cts, output, seg=True, rtstruct=False, probabilities=True, height=170, weight=70), output


def mask_of(folder: Path) -> np.ndarray:
    return np.asarray(nib.load(folder / "liver.nii.gz").dataobj)


def test_every_study_gets_a_folder_and_a_row(done):
    outcomes, output = done
    assert [outcome.status for outcome in outcomes] == ["done"] * 3
    with open(output / "measures.csv", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert set(rows) == {outcome.name for outcome in outcomes}
    assert {path.name for path in output.iterdir()} == {*rows, "measures.csv", ".salt"}
    for outcome in outcomes:
        folder = output / outcome.name
        more = ["liver.seg.dcm"] * Path(outcome.source).is_dir() + ["probability.nii.gz"]
        assert sorted(os.listdir(folder)) == sorted(FILES + more)
        manifest = json.loads((folder / "manifest.json").read_text())
        assert complete(folder / "manifest.json", **manifest["about"])
        image = nib.load(folder / "liver.nii.gz")
        volume = np.asarray(image.dataobj).sum() * abs(np.linalg.det(image.affine)) / 1000
        assert float(rows[outcome.name]["volume_ml"]) == pytest.approx(volume, rel=1e-5, abs=1e-6)
        assert outcome.volume_ml == pytest.approx(volume, rel=1e-5, abs=1e-6)
        assert rows[outcome.name]["verdict"] == outcome.verdict
    assert debris(output) == []


def test_the_masks_are_those_of_the_bundles_own_inference(cts, done, tmp_path):
    _, output = done
    run(
        config_file=str(BUNDLE / "configs" / "inference.json"),
        bundle_root=str(BUNDLE),
        dataset_dir=str(cts / "abdomen.nii.gz"),
        output_dir=str(tmp_path),
    )
    expected = np.asarray(nib.load(tmp_path / "abdomen_liver.nii.gz").dataobj)
    assert expected.any()
    np.testing.assert_array_equal(mask_of(output / "abdomen"), expected)


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SPL", "AIR"])
def test_a_ct_in_any_order_of_axes_has_the_mask_of_the_bundle(codes, tmp_path):
    """Slices along each axis of the array, upward and downward."""
    path = tmp_path / "ct.nii.gz"
    save_phantom(make_phantom(seed=5, shape=(40, 40, 35), spacing=(9, 9, 8), axcodes=codes), path)
    folders = {"bundle_root": str(BUNDLE), "dataset_dir": str(path), "output_dir": str(tmp_path)}
    run(config_file=str(BUNDLE / "configs" / "inference.json"), pixel_size="@fast_pixel_size", **folders)
    (outcome,) = segment(path, tmp_path / "out", fast=True)
    expected = np.asarray(nib.load(tmp_path / "ct_liver.nii.gz").dataobj)
    assert expected.any()
    np.testing.assert_array_equal(mask_of(tmp_path / "out" / outcome.name), expected)
    assert outcome.verdict != "ok" and any("limits" in reason and "grid" in reason for reason in outcome.reasons)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_volume_thinner_than_a_slab_is_segmented(depth, tmp_path):
    phantom = make_phantom(seed=5, shape=(96, 96, 30), spacing=(4, 4, 8), axcodes="RAS")
    z = int(np.argmax((phantom.label > 0).sum((0, 1))))
    affine = phantom.affine @ np.diag([1, 1, 1 / 8, 1])
    image = np.repeat(phantom.image[:, :, z : z + 1], depth, axis=2)
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "ct.nii.gz")
    (outcome,) = segment(tmp_path / "ct.nii.gz", tmp_path / "out")
    if depth == 1:
        assert outcome.status == "failed" and "is not a volume" in outcome.error
    else:
        assert outcome.status == "done" and mask_of(tmp_path / "out" / outcome.name).any()


def test_one_phantom_in_all_axis_codes_and_formats_has_one_mask_in_the_world(tmp_path):
    """48 codes as NIfTI and as DICOM: the same mask, Dice >= 0.99, its centroid within half a voxel."""
    pipeline, expected = Pipeline(pixel_size=3.0), None
    for codes in CODES:
        phantom = make_phantom(seed=4, shape=(40, 40, 10), spacing=(9, 9, 20), axcodes=codes)
        save_phantom(phantom, tmp_path / f"{codes}.nii.gz")
        write_series(phantom.image, phantom.affine, tmp_path / codes)
        for path in (tmp_path / f"{codes}.nii.gz", tmp_path / codes):
            volume = load(path)
            image = nib.Nifti1Image(pipeline(volume).mask, volume.affine.numpy())
            image = nib.as_closest_canonical(image)
            mask, affine = np.asarray(image.dataobj) > 0, image.affine
            if expected is None:
                expected = mask, affine
                assert mask.sum() > 300
            np.testing.assert_allclose(affine, expected[1], atol=1e-3)
            assert 2 * (mask & expected[0]).sum() / (mask.sum() + expected[0].sum()) >= 0.99, path
            centres = [np.argwhere(one).mean(axis=0) for one in (mask, expected[0])]
            assert np.abs(centres[0] - centres[1]).max() < 0.5


def test_every_malformed_input_is_one_line_and_the_rest_is_done(cts, tmp_path):
    refused = [case for case in CASES if case.refused]
    sources = []
    for number, case in enumerate(refused):
        folder = tmp_path / "in" / str(number)
        folder.mkdir(parents=True)
        sources.append(case.make(folder))
    output = tmp_path / "out"
    ended = ravnet("segment", *sources, cts / "abdomen.nii.gz", "-o", output, "--fast", "--json")
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    outcomes = json.loads(ended.stdout)
    assert [outcome["name"] for outcome in outcomes if outcome["status"] == "done"] == ["abdomen"]
    errors = [outcome["error"] for outcome in outcomes if outcome["status"] == "failed"]
    for case in refused:
        assert any(case.says in error for error in errors), case.name
    assert len(errors) >= len(refused) >= 60
    assert all(error.isprintable() for error in errors)
    assert sorted(os.listdir(output)) == [".salt", "abdomen", "measures.csv"]


def test_a_pelvis_is_not_said_to_have_a_liver(done):
    outcomes, _ = done
    pelvis = next(outcome for outcome in outcomes if outcome.name == "pelvis")
    assert pelvis.verdict == "reject" and pelvis.reasons


def test_an_affine_that_states_nothing_is_a_reason_for_review(tmp_path):
    """The volume is wrong by as much as the spacing is: it is told on the terminal, not in a note alone."""
    phantom = make_phantom(seed=1, **SMALL)
    nib.save(nib.Nifti1Image(phantom.image, np.eye(4)), tmp_path / "identity.nii.gz")
    mute = nib.Nifti1Image(phantom.image, phantom.affine)
    mute.set_sform(None, 0)
    mute.set_qform(None, 0)
    nib.save(mute, tmp_path / "mute.nii.gz")
    save_phantom(phantom, tmp_path / "stated.nii.gz")
    ended = ravnet("segment", tmp_path, "-o", tmp_path / "out", "--fast")
    told = {line.split(": ")[0]: line for line in ended.stdout.splitlines()}
    for name, doubt in (("identity", "The affine is an identity"), ("mute", "The header states no orientation")):
        assert doubt in told[name] and ", ok" not in told[name] and doubt not in told["stated"]
    assert json.loads((tmp_path / "out" / "mute" / "measures.json").read_text())["notes"] == []


def test_nothing_of_the_patient_is_in_reports_tables_or_names(done):
    outcomes, output = done
    patient = next(outcome for outcome in outcomes if "quillon" in outcome.source)
    assert patient.name.startswith("ct-")
    words = ["zyxwv", "quillon", "4711-0815", "20210405", "2021-04-05", "acc998877"]
    source = next(Path(patient.source).iterdir())
    words += [str(pydicom.dcmread(source)[tag].value) for tag in ("StudyInstanceUID", "SeriesInstanceUID")]
    for path in output.rglob("*"):
        assert not any(word in path.name.lower() for word in words), path
        if path.suffix in (".html", ".json", ".csv"):
            text = path.read_text().lower()
            assert [word for word in words if word in text] == [], path
        elif path.suffix == ".png":
            assert not any(word.encode() in path.read_bytes().lower() for word in words)


def test_names_are_kept_where_they_are_asked_for(cts, tmp_path):
    (outcome,) = segment(cts / "zyxwv-quillon_2021-04-05", tmp_path / "out", anonymous=False, fast=True)
    assert outcome.name == "zyxwv-quillon_2021-04-05" and outcome.status == "done"


def test_a_broken_study_does_not_stop_the_others(cts, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(cts / "abdomen.nii.gz", folder / "b.nii.gz")
    (folder / "a.nii.gz").write_bytes((cts / "abdomen.nii.gz").read_bytes()[:999])
    (folder / "c.nii.gz").write_bytes(b"")
    ended = ravnet("segment", folder, "-o", tmp_path / "out", "--fast")
    assert ended.returncode == 1
    lines = ended.stderr.splitlines()
    assert [line for line in lines if line.startswith("error: ")] and "Traceback" not in ended.stderr
    assert sum("a.nii.gz" in line for line in lines) == sum("c.nii.gz" in line for line in lines) == 1
    assert sorted(os.listdir(tmp_path / "out")) == ["b", "measures.csv"]
    assert "1 of 3" in ended.stdout


def test_results_are_no_inputs_and_never_lie_among_them(cts, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(cts / "zyxwv-quillon_2021-04-05", folder / "one")
    before = contents(folder)
    (outcome,) = segment(folder, folder, fast=True, anonymous=False)
    assert outcome.status == "failed" and "another output folder" in outcome.error
    assert contents(folder) == before
    for status in ("done", "kept"):
        (outcome,) = segment(folder, folder / "out", seg=True, fast=True, resume=True)
        assert outcome.status == status
    assert {name: content for name, content in contents(folder).items() if name in before} == before


def test_a_foreign_manifest_makes_no_result_of_an_input(tmp_path, caplog):
    """Exports hold files called manifest.json too; ours names our mask. A dry run sets the same aside."""
    export, phantom = tmp_path / "export", make_phantom(seed=2, shape=(40, 36, 8), spacing=(9, 9, 19))
    for number, manifest in enumerate(("{}", "[1]", "no JSON", '{"about": 0, "files": ["IM0000"]}', "[" * 100_000)):
        write_series(phantom.image, phantom.affine, export / str(number))
        (export / str(number) / "manifest.json").write_text(manifest)
    (outcome,) = segment(export / "0", export / "out", fast=True, anonymous=False)
    assert outcome.status == "done"
    line = f"set aside: {export / 'out' / '0' / 'liver.nii.gz'}: a result of ravnet segment"
    caplog.set_level(logging.INFO)
    assert segment(export / "out", tmp_path / "out") == [] and line in caplog.messages
    dry = ravnet("segment", export, "-o", tmp_path / "out", "--dry-run", "--no-anonymous")
    assert (dry.returncode, dry.stderr.splitlines()) == (0, [line])
    assert [told.split(": ")[0] for told in dry.stdout.splitlines()] == [*"01234"]


def test_the_same_input_gives_the_same_mask_on_one_thread_or_two(cts, tmp_path):
    threads, masks = torch.get_num_threads(), []
    try:
        for number in (1, 1, 1, 1, 1, 2):
            segment(cts / "abdomen.nii.gz", tmp_path / "out", threads=number, fast=True)
            masks.append(mask_of(tmp_path / "out" / "abdomen") > 0)
    finally:
        torch.set_num_threads(threads)
    for mask in masks[1:5]:
        np.testing.assert_array_equal(mask, masks[0])
    assert 2 * (masks[0] & masks[5]).sum() / (masks[0].sum() + masks[5].sum()) >= 0.9999


def test_an_output_that_cannot_be_a_folder_is_a_usage_error(cts, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nothing"):
        ended = ravnet("segment", cts / "abdomen.nii.gz", "-o", output)
        assert ended.returncode == 2, output
        assert len(ended.stderr.splitlines()) == 1 and ended.stderr.startswith("error: ")
