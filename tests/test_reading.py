"""What is a scan, and what is refused: `scripts/reading.py`."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom import write_series

from scripts.phantom import make_phantom, save_phantom
from scripts.reading import CTError, LoadCTd, check_series, find_scans


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(seed=3, shape=(64, 64, 16), spacing=(6, 6, 12))


def load(path):
    return LoadCTd("image")({"image": str(path)})["image"]


def save(array, path, affine=None):
    nib.save(nib.Nifti1Image(array, np.diag([2.0, 2.0, 5.0, 1.0]) if affine is None else affine), path)
    return path


def test_scans_are_found_in_a_file_a_dicom_folder_and_a_folder_of_both(phantom, tmp_path):
    save_phantom(phantom, tmp_path / "b.nii.gz")
    (tmp_path / "deep").mkdir()
    save_phantom(phantom, tmp_path / "deep" / "a.nii")
    write_series(phantom.image, phantom.affine, tmp_path / "study" / "ct")
    (tmp_path / "notes.txt").write_text("not a scan")
    found = [item["image"] for item in find_scans(str(tmp_path))]
    assert found == [str(tmp_path / name) for name in ("b.nii.gz", "deep/a.nii", "study/ct")]
    for one in found:
        assert find_scans(one) == [{"image": one}]


@pytest.mark.parametrize("content", [None, "empty"])
def test_nothing_to_read_is_said(content, tmp_path):
    path = tmp_path / "x"
    if content:
        path.mkdir()
    with pytest.raises(CTError, match="no such file or folder|no scan in this folder"):
        find_scans(str(path))


def test_a_dicom_folder_and_a_nifti_of_one_scan_are_the_same_volume(phantom, tmp_path):
    write_series(phantom.image, phantom.affine, tmp_path / "dicom")
    save_phantom(phantom, tmp_path / "ct.nii.gz")
    volumes = [load(tmp_path / name) for name in ("dicom", "ct.nii.gz")]
    world = [nib.as_closest_canonical(nib.Nifti1Image(v.numpy(), v.affine.numpy())) for v in volumes]
    np.testing.assert_allclose(world[0].affine, world[1].affine, atol=1e-3)
    np.testing.assert_array_equal(world[0].get_fdata(), world[1].get_fdata())


WRONG = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "cannot be read"),
    "text": (lambda path: path.write_text("patient: unknown"), "cannot be read"),
    "2-D": (lambda path: save(np.full((32, 32), -50, np.int16), path), "not a volume"),
    "one slice": (lambda path: save(np.full((32, 32, 1), -50, np.int16), path), "not a volume"),
    "4-D": (lambda path: save(np.zeros((8, 8, 8, 2), np.int16), path), "not a volume"),
    "not finite": (lambda path: save(np.full((8, 8, 8), np.nan, np.float32), path), "not finite"),
    "normalised": (lambda path: save(np.random.default_rng(0).random((8, 8, 8)), path), "not HU"),
    "air": (lambda path: save(np.full((8, 8, 8), -1000, np.int16), path), "no value between"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_in_one_line(case, phantom, tmp_path):
    spoil, reason = WRONG[case]
    path = tmp_path / "ct.nii.gz"
    save_phantom(phantom, path)
    assert load(path).shape == (64, 64, 16)
    spoil(path)
    with pytest.raises(CTError, match=reason) as caught:
        load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(CTError, match="no such file"):
        load(tmp_path / "ct.nii.gz")


def test_a_singleton_fourth_axis_is_dropped(phantom, tmp_path):
    path = save(phantom.image[..., None], tmp_path / "ct.nii.gz", phantom.affine)
    assert load(path).shape == phantom.image.shape


def rewrite(file, **changes):
    dataset = pydicom.dcmread(file)
    for name, value in changes.items():
        setattr(dataset, name, value)
    dataset.save_as(file)


SPOILED = {
    "a slice is missing": (lambda files: files[5].unlink(), "missing, doubled or unevenly"),
    "a slice is doubled": (
        lambda files: rewrite(files[5], ImagePositionPatient=pydicom.dcmread(files[6]).ImagePositionPatient),
        "missing, doubled or unevenly",
    ),
    "another series": (lambda files: rewrite(files[0], SeriesInstanceUID="1.2.3"), "2 series"),
    "not a CT": (lambda files: [rewrite(file, Modality="MR") for file in files], "modality MR"),
    "no position": (lambda files: rewrite(files[3], ImagePositionPatient=None) or drop(files[3]), "cannot be placed"),
}


def drop(file):
    dataset = pydicom.dcmread(file)
    del dataset.ImagePositionPatient
    dataset.save_as(file)


@pytest.mark.parametrize("case", SPOILED)
def test_a_dicom_folder_that_is_not_one_even_ct_series_is_refused(case, phantom, tmp_path):
    files = write_series(phantom.image, phantom.affine, tmp_path / "dicom")
    check_series(tmp_path / "dicom")
    spoil, reason = SPOILED[case]
    spoil(files)
    with pytest.raises(CTError, match=reason):
        load(tmp_path / "dicom")


def test_the_spacing_of_a_real_series_is_that_of_its_positions(data_dir):
    volume = load(data_dir / "chaos_ct" / "dicom")
    assert volume.shape == (512, 512, 78)
    np.testing.assert_allclose(volume.pixdim, [0.727, 0.727, 2.0], atol=1e-3)  # the header's SliceThickness says 3.2
    assert -1100 < float(volume.min()) < -900 < 400 < float(volume.max())
