"""A mask out as NIfTI, whole or not at all, with its manifest: `scripts/writing`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from dicom_reading import RAS_TO_LPS, SHAPE, affine_of, liver, voxel_centres
from series_files import write_series

from scripts.writing import complete, write_manifest, write_nifti


def test_a_mask_is_read_back_by_others_on_the_same_grid(tmp_path):
    affine = affine_of("oblique")
    mask = liver(voxel_centres(affine, SHAPE))
    for content in (mask, mask.astype(np.int64), np.asfortranarray(mask)):
        write_nifti(content, affine, tmp_path / "mask.nii.gz")
        image = nib.load(tmp_path / "mask.nii.gz")
        assert image.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(image.dataobj), mask)
    for form, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(form, affine, atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"
    other = itk.imread(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(itk.array_from_image(other), mask.T)
    corner = np.array(other.TransformIndexToPhysicalPoint([SHAPE[0] - 1, 2, 3])) * RAS_TO_LPS
    np.testing.assert_allclose(corner, voxel_centres(affine, SHAPE)[-1, 2, 3], atol=1e-3)


def test_a_sheared_affine_is_kept_in_the_sform(tmp_path):
    affine = affine_of("axial")
    affine[1, 2] = 1.0
    write_nifti(np.ones((4, 5, 6), bool), affine, tmp_path / "x.nii.gz")
    image = nib.load(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    assert image.header["qform_code"] == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_come_back_within_a_step_and_on_the_same_side_of_a_half(dtype, tmp_path):
    half = np.array([0, np.nextafter(dtype(0.5), dtype(0)), 0.5, np.nextafter(dtype(0.5), dtype(1)), 1], dtype)
    values = np.concatenate([np.random.default_rng(0).random(995).astype(dtype), half]).reshape(10, 10, 10)
    write_nifti(values, np.eye(4), tmp_path / "p.nii.gz")
    image = nib.load(tmp_path / "p.nii.gz")
    assert image.get_data_dtype() == np.uint8
    read = image.get_fdata()
    assert np.abs(read - values).max() <= 0.5 / 255 + 1e-6
    np.testing.assert_array_equal(read >= 0.5, values >= 0.5)


@pytest.mark.parametrize("value", [2, -1, 1.5, np.nan])
def test_what_is_no_mask_and_no_probability_is_refused(value, tmp_path):
    with pytest.raises(ValueError, match="0 to 1"):
        write_nifti(np.full((3, 3, 3), value), np.eye(4), tmp_path / "x.nii.gz")
    assert not any(tmp_path.iterdir())


@pytest.fixture
def results(tmp_path):
    (tmp_path / "deep").mkdir()
    files = [tmp_path / "mask.nii.gz", tmp_path / "deep" / "seg.dcm"]
    for file in files:
        file.write_bytes(os.urandom(5000))
    about = {"input": "12ab", "versions": {"monai": "1.6"}, "options": ("fast", 1.5, None)}
    write_manifest(tmp_path / "manifest.json", files, **about)
    return tmp_path / "manifest.json", files, about


def test_a_manifest_is_complete_here_and_wherever_its_folder_is_moved(results):
    manifest, _, about = results
    assert complete(manifest, **about)
    moved = shutil.copytree(manifest.parent, manifest.parent.with_name(f"{manifest.parent.name} moved"))
    assert complete(moved / "manifest.json", **about)
    before = manifest.read_bytes()
    write_manifest(manifest, results[1][::-1], **dict(reversed(about.items())))
    assert manifest.read_bytes() == before  # however the files and what it is about are ordered


def flip(file):
    content = bytearray(file.read_bytes())
    content[2500] ^= 1
    file.write_bytes(content)


HARM = {
    "a flipped bit": lambda manifest, file: flip(file),
    "a truncated file": lambda manifest, file: os.truncate(file, 4999),
    "a longer file": lambda manifest, file: file.write_bytes(file.read_bytes() + b" "),
    "a missing file": lambda manifest, file: file.unlink(),
    "a folder in its place": lambda manifest, file: file.unlink() or file.mkdir(),
    "no manifest": lambda manifest, file: manifest.unlink(),
    "a truncated manifest": lambda manifest, file: os.truncate(manifest, 40),
    "an empty manifest": lambda manifest, file: manifest.write_text(""),
    "another JSON": lambda manifest, file: manifest.write_text('["files"]'),
    "a manifest of odd types": lambda manifest, file: manifest.write_text('{"about": {}, "files": [1]}'),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_harmed_result_is_not_complete(harm, results):
    manifest, files, about = results
    HARM[harm](manifest, files[1])
    assert not complete(manifest, **about)


def test_a_result_of_another_input_or_software_is_not_complete(results):
    manifest, _, about = results
    assert not complete(manifest, **{**about, "input": "12ac"})
    assert not complete(manifest, **{**about, "versions": {"monai": "1.7"}})
    assert not complete(manifest, **about, device="cpu")
    assert not complete(manifest, input=about["input"])


def test_a_manifest_names_only_files_that_are_with_it(results):
    manifest, files, _ = results
    with pytest.raises(ValueError):
        write_manifest(manifest.parent / "deep" / "manifest.json", files)
    with pytest.raises(OSError):
        write_manifest(manifest, [manifest.parent / "missing"])


# Each writer once, in a process that may not write: as a child, since limits and users cannot be had back.
CHILD = """
import json, os, resource, sys
from pathlib import Path
import numpy as np
from scripts.writing import *

series, out, trouble = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
software = Software("a", "1", "0")
mask, affine, files = np.load(series / "mask.npy"), np.load(series / "affine.npy"), sorted(series.glob("IM*"))
writers = {
    "nifti": lambda path: write_nifti(mask, affine, path),
    "seg": lambda path: write_seg(mask, affine, files, path, software),
    "rtstruct": lambda path: write_rtstruct(mask, affine, files, path, software),
    "manifest": lambda path: write_manifest(path, [], padding="x" * 10000),
}
if trouble == "full disk":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
elif os.geteuid() == 0:
    os.setuid(65534)
said = {}
for name, write in writers.items():
    try:
        write(out / name)
    except OSError as error:
        said[name] = str(error)
print(json.dumps(said))
"""


@pytest.mark.parametrize("trouble", ["full disk", "read-only folder"])
def test_where_nothing_can_be_written_the_error_is_one_line_and_nothing_is_left(trouble, tmp_path):
    noise = np.random.default_rng(0).random(SHAPE) < 0.5  # so that no result is small
    out = Path(tempfile.mkdtemp())  # where another user may go
    try:
        series = out / "ct"
        write_series(np.zeros(SHAPE), affine_of("axial"), series)
        np.save(series / "mask.npy", noise)
        np.save(series / "affine.npy", affine_of("axial"))
        for path in (out, series):
            path.chmod(0o755)
        results = out / "results"
        results.mkdir()
        results.chmod(0o755 if trouble == "full disk" else 0o555)
        root = Path(__file__).parents[2] / "ravnet_bundle"
        child = subprocess.run(
            [sys.executable, "-c", CHILD, series, results, trouble],
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
        assert child.returncode == 0, child.stderr
        said = json.loads(child.stdout)
        assert set(said) == {"nifti", "seg", "rtstruct", "manifest"}
        reason = "File too large" if trouble == "full disk" else "Permission denied"
        assert all(reason in text and "\n" not in text for text in said.values())
        assert not any(results.iterdir())
    finally:
        shutil.rmtree(out)
