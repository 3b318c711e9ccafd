"""What is a scan, and what is refused: `scripts/reading`."""

import tracemalloc
import zipfile

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from pydicom.uid import generate_uid
from series_files import rewrite, write_series

from scripts.phantom import make_phantom, save_phantom
from scripts.reading import CTError, LoadCTd, check_header, check_series, find, find_scans
from scripts.reading import load as load_scan


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
    found = find_scans(str(path))  # MONAI evaluates a config as a whole where there are no data, too
    with pytest.raises(CTError, match="no such file or folder|no scan in this folder"):
        found[0]


def test_of_a_decathlon_folder_the_scans_to_segment_are_found(tmp_path):
    for name in ("imagesTr/liver_1", "imagesTs/liver_2", "labelsTr/liver_1"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.nii.gz").touch()
    assert find_scans(str(tmp_path)) == [{"image": str(tmp_path / "imagesTs" / "liver_2.nii.gz")}]


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


SPOILED = {
    "a slice is missing": (lambda files: files[5].unlink(), "missing, doubled or unevenly"),
    "a slice is doubled": (
        lambda files: rewrite(files[5], ImagePositionPatient=pydicom.dcmread(files[6]).ImagePositionPatient),
        "missing, doubled or unevenly",
    ),
    "another series": (lambda files: [rewrite(file, SeriesInstanceUID="1.2.3") for file in files[:5]], "2 series"),
    "not a CT": (lambda files: [rewrite(file, Modality="MR") for file in files], "modality MR"),
    "no position": (lambda files: rewrite(files[3], ImagePositionPatient=None), "cannot be placed"),
}


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


def two_series(phantom, folder):
    """Series 2 of 16 slices, and 3 of 8 of them, of one study, in one folder."""
    study = generate_uid()
    for number, image in ((2, phantom.image), (3, phantom.image[:, :, :8])):

        def change(z, ds, number=number):
            ds.StudyInstanceUID, ds.SeriesNumber = study, number

        for file in write_series(image, phantom.affine, folder / "apart", change=change):
            file.rename(folder / f"S{number}{file.name}")
    (folder / "apart").rmdir()
    return folder


@pytest.mark.parametrize(
    ("series", "names"),
    [(None, ["study_s2", "study_s3"]), ("largest", ["study"]), (3, ["study"]), ("2", ["study"]), ("7", [])],
)
def test_of_several_series_each_is_a_scan_or_one_is_chosen(series, names, phantom, tmp_path):
    (tmp_path / "study").mkdir()
    found = find([two_series(phantom, tmp_path / "study")], series)
    assert [scan.name for scan in found.scans] == names
    if series in ("largest", "2"):
        assert len(found.scans[0].files) == 16 and found.aside == (f"{tmp_path / 'study'}: CT series 3 not chosen",)
    elif series == 3:
        assert len(found.scans[0].files) == 8
    elif series == "7":
        assert found.refused[0][1].endswith("no CT series 7: there are 2 (16 slices), 3 (8 slices).")


def test_names_come_from_files_and_folders_and_are_unique_and_safe(phantom, tmp_path):
    for place in ("a/ct", "b/ct", "c d"):
        write_series(phantom.image, phantom.affine, tmp_path / place)
        save_phantom(phantom, tmp_path / place / "Scan 1.nii.gz")
    found = find([tmp_path, tmp_path / "a" / "ct", tmp_path / "c d" / "Scan 1.nii.gz"])
    names = [scan.name for scan in found.scans]
    assert names == ["a_ct_Scan_1", "b_ct_Scan_1", "c_d_Scan_1", "a_ct", "b_ct", "c_d"]  # each once
    apart = find([tmp_path / "a" / "ct", tmp_path / "b" / "ct"])
    assert [scan.name for scan in apart.scans] == ["a_ct_Scan_1", "a_ct", "b_ct_Scan_1", "b_ct"]
    assert "phantom" not in str(apart)  # the patient's name


def test_a_zip_is_read_where_it_is_and_nothing_is_unpacked(phantom, tmp_path, monkeypatch):
    files = write_series(phantom.image, phantom.affine, tmp_path / "ct")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for file, lead in zip(files, ("", "../", "../../", str(tmp_path) + "/", "C:\\", "a/../../") * 3):
            archive.writestr(f"{lead}{file.name}", file.read_bytes())
    before = set(tmp_path.rglob("*"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "gone"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (scan,) = find([tmp_path / "study.zip"]).scans
    assert (scan.name, scan.source, len(scan.files)) == ("study", tmp_path / "study.zip", 16)
    np.testing.assert_array_equal(load_scan(scan), load_scan(tmp_path / "ct"))
    assert set(tmp_path.rglob("*")) == before
    assert load(tmp_path / "study.zip").shape == phantom.image.shape


def test_what_is_refused_in_a_zip_goes_by_the_zip(phantom, tmp_path):
    files = write_series(phantom.image, phantom.affine, tmp_path / "ct")
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for n, file in enumerate(files):
            archive.writestr(f"deep/{file.name}", file.read_bytes()[: 300 if n % 2 else None])
    found = find([tmp_path / "study.zip"])
    assert {source for source, _ in found.refused} == {str(tmp_path / "study.zip")}  # which decides on the shard
    assert [f"study.zip: deep/IM000{n}: " in line for n, (_, line) in zip((1, 3, 5), found.refused)] == [True] * 3
    assert len(found.refused) == 4 and found.refused[3][1].endswith(
        "study.zip: 5 more files in it cannot be read either."
    )


def test_each_slice_is_opened_once_to_be_found_and_once_to_be_read(phantom, tmp_path, monkeypatch):
    files = write_series(phantom.image, phantom.affine, tmp_path / "ct")
    parsed = []
    plain = pydicom.dcmread
    monkeypatch.setattr("pydicom.dcmread", lambda *given, **more: parsed.append(given) or plain(*given, **more))
    (scan,) = find([tmp_path / "ct"]).scans
    check_header(scan)
    load_scan(scan)
    assert len(parsed) == 2 * len(files)


def test_a_slice_that_changes_between_finding_and_reading_is_refused(phantom, tmp_path):
    files = write_series(phantom.image, phantom.affine, tmp_path / "ct")
    (scan,) = find([tmp_path / "ct"]).scans
    rewrite(files[4], ImagePositionPatient=["0", "0", "1000"])
    with pytest.raises(CTError, match="changed during reading"):
        load_scan(scan)


def test_slices_are_in_the_order_of_the_volume(phantom, tmp_path):
    files = write_series(phantom.image, phantom.affine, tmp_path / "ct")
    (scan,) = find([tmp_path / "ct"]).scans
    assert scan.files == tuple(files)
    volume = LoadCTd("image")({"image": scan})["image"]
    for z in (0, 7, 15):
        np.testing.assert_array_equal(volume[..., z], pydicom.dcmread(scan.files[z]).pixel_array.T - 1024.0)
    assert volume.meta["filename_or_obj"] == str(tmp_path / "ct") and volume.meta["notes"] == ""


def test_a_straightened_grid_keeps_its_centre_and_its_file_s_affine(phantom, tmp_path):
    affine = phantom.affine.copy()
    affine[:3, 2] += [0, 0.06, 0]  # 0.3 degrees of 12 mm
    image = nib.Nifti1Image(phantom.image, affine)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "ct.nii.gz")
    volume = load(tmp_path / "ct.nii.gz")
    straight, centre = volume.affine.numpy(), [31.5, 31.5, 7.5, 1]
    np.testing.assert_allclose(straight @ centre, affine @ centre, atol=1e-4)
    cosines = straight[:3, :3] / np.linalg.norm(straight[:3, :3], axis=0)
    np.testing.assert_allclose(cosines.T @ cosines, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(volume.meta["original_affine"], affine, atol=1e-6)
    assert volume.meta["notes"].startswith("direction cosines straightened by 0.29 degrees")


@pytest.mark.parametrize("degrees, straight", [(0.45, True), (0.55, False)])
def test_half_a_degree_is_a_slip_and_more_is_a_tilted_gantry(phantom, tmp_path, degrees, straight):
    affine = phantom.affine.copy()
    affine[1, 2] += np.linalg.norm(affine[:3, 2]) * np.tan(np.radians(degrees))
    image = nib.Nifti1Image(phantom.image, affine)
    image.set_qform(None, 0)
    nib.save(image, tmp_path / "ct.nii.gz")
    if straight:
        assert "straightened" in load(tmp_path / "ct.nii.gz").meta["notes"]
    else:
        with pytest.raises(CTError, match="degrees"):
            load(tmp_path / "ct.nii.gz")


@pytest.mark.parametrize("kind", ["dicom", "nii", "nii.gz"])
def test_loading_holds_little_more_than_the_volume(kind, tmp_path):
    image = np.random.default_rng(0).integers(-1000, 400, (200, 200, 50)).astype(np.int16)
    affine = np.diag([-2.0, -2.0, 3.0, 1.0])
    path = tmp_path / f"ct.{kind}"
    if kind == "dicom":
        write_series(image, affine, path)
    else:
        save(image, path, affine)
    (scan,) = find([path]).scans
    tracemalloc.start()
    volume = load_scan(scan)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert volume.dtype == torch.int16
    assert volume.numel() * 2 < peak < volume.numel() * 2 * 1.4


def test_fractions_of_a_hu_and_values_beyond_16_bits_are_kept(tmp_path):
    image = np.random.default_rng(0).integers(-1000, 400, (20, 20, 9)).astype(np.float32)
    for name, value in (("fraction", 0.25), ("metal", 40_000.0)):
        image[3, 4, 5] = value  # not in the first slices
        volume = load_scan(save(image, tmp_path / f"{name}.nii.gz", np.diag([-2.0, -2.0, 3.0, 1.0])))
        assert volume.dtype == torch.float32
        np.testing.assert_array_equal(volume.numpy(), image)


def test_headers_are_checked_without_the_voxels(phantom, tmp_path):
    path = save(np.full((8, 8, 8), np.nan, np.float32), tmp_path / "ct.nii.gz")
    (scan,) = find([path]).scans
    check_header(scan)
    with pytest.raises(CTError, match="not finite"):
        load_scan(scan)


def test_real_cts_pass_the_gates_and_their_masks_do_not(data_dir):
    scans = ["lits/imagesTr/lits_000.nii.gz", "lits/imagesTr/lits_050.nii.gz", "totalseg_example/ct.nii.gz"]
    for name in (*scans, "dcmqi_ct3/dicom"):
        assert load(data_dir / name).ndim == 3
    for name in ("lits/labelsTr/lits_000.nii.gz", "totalseg_example/liver_by_model.nii.gz"):
        with pytest.raises(CTError, match="not HU"):
            load(data_dir / name)
    found = find([data_dir / "dcmqi_ct3"])
    assert [len(scan.files) for scan in found.scans] == [3]
    assert "modality SEG" in found.aside[0]
    assert "167316 voxels of padding" in load_scan(found.scans[0]).meta["notes"]
