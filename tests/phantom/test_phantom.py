"""Phantoms: what the rest of the tests stand on must itself be true."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from monai.transforms import LoadImage
from scipy.ndimage import binary_erosion, label

from scripts.phantom import make_decathlon, make_phantom, save_phantom
from scripts.phantom.tissues import PHASES, TISSUES

FEW = {"shape": (32, 28, 7), "spacing": (12, 13, 4)}  # three different lengths, made in a moment
SLAB = {"shape": (96, 96, 14), "spacing": (4, 4, 4)}  # the middle of the liver


@pytest.fixture(scope="module")
def abdomen():
    return make_phantom(seed=8, **SLAB)


def test_the_same_seed_gives_the_same_voxels_and_another_seed_another_patient():
    first, again, other = (make_phantom(seed, **FEW) for seed in (5, 5, 6))
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    assert (first.label != other.label).sum() > 20
    assert not np.array_equal(first.image, other.image)


def test_types_shape_spacing_and_affine(abdomen):
    assert (abdomen.image.dtype, abdomen.label.dtype, abdomen.affine.dtype) == (np.int16, np.uint8, np.float64)
    assert abdomen.image.shape == abdomen.label.shape == (96, 96, 14)
    assert set(np.unique(abdomen.label)) == {0, 1, 2}
    assert np.allclose(nib.affines.voxel_sizes(abdomen.affine), (4, 4, 4))
    assert nib.aff2axcodes(abdomen.affine) == ("L", "P", "S")


@pytest.mark.parametrize("seed", range(4))
def test_the_liver_is_one_piece_of_plausible_size_on_the_right(seed):
    phantom = make_phantom(seed, (56, 56, 60), (7, 7, 4), axcodes="RAS")
    liver = phantom.label > 0
    assert 1000 < liver.sum() * 0.196 < 2000  # ml
    pieces, count = label(liver)
    assert np.bincount(pieces.ravel())[1:].max() > 0.99 * liver.sum()
    x, y, z = nib.affines.apply_affine(phantom.affine, np.argwhere(liver)).T
    assert x.mean() > 25  # RAS+: the patient's right
    assert 170 < np.ptp(x) < 260 and 120 < np.ptp(y) < 210 and 130 < np.ptp(z) < 230


def test_tumours_lie_inside_the_liver(abdomen):
    tumour, liver = abdomen.label == 2, abdomen.label > 0
    assert tumour.sum() > 10
    assert (tumour & ~binary_erosion(liver, border_value=1)).sum() < 0.05 * tumour.sum()


@pytest.mark.parametrize("region, lungs", [("chest", (0.06, 0.3)), ("pelvis", (0.0, 0.04))])
def test_chest_and_pelvis_show_a_body_without_liver(region, lungs):
    for seed in range(2):
        phantom = make_phantom(seed, (40, 40, 18), (9.5, 9.5, 12), region=region)
        assert not phantom.label.any()
        assert (phantom.image > 300).sum() > 20  # bone
        assert 0.1 < (phantom.image > -200).mean() < 0.8
        assert lungs[0] <= ((phantom.image > -900) & (phantom.image < -750)).mean() < lungs[1]


@pytest.mark.parametrize("phase", PHASES)
def test_liver_and_tumour_have_the_hu_of_the_table(phase):
    phantom = make_phantom(seed=8, phase=phase, **SLAB)
    for value, name in ((1, "liver"), (2, "tumour")):
        inner = binary_erosion(phantom.label == value)
        assert abs(np.median(phantom.image[inner]) - getattr(TISSUES[name], phase)) < 15
    assert abs(np.median(phantom.image[:3, :3]) + 1000) < 20  # air


def test_noise_is_stronger_in_thin_slices_and_not_white():
    spread, step = {}, {}
    for thickness in (1.0, 5.0):
        phantom = make_phantom(3, (512, 512, 1), (0.75, 0.75, thickness))
        image, inner = phantom.image[..., 0].astype(float), binary_erosion(phantom.label[..., 0] == 1, iterations=12)
        deviation = np.abs(image[inner] - np.median(image[inner]))
        spread[thickness] = 1.4826 * np.median(deviation)  # robust against vessels
        step[thickness] = 1.4826 * np.median(np.abs(np.diff(image, axis=0)[inner[1:] & inner[:-1]]))
    assert 20 <= spread[1.0] <= 36 and 8 <= spread[5.0] <= 16
    assert step[1.0] < 0.85 * np.sqrt(2) * spread[1.0]  # white noise would give sqrt(2)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "RSA", "SPL", "AIR", "PIL"])
def test_every_storage_order_holds_the_same_world(axcodes):
    stored, reference = make_phantom(2, axcodes=axcodes, **FEW), make_phantom(2, axcodes="RAS", **FEW)
    assert "".join(nib.aff2axcodes(stored.affine)) == axcodes
    for array, expected in ((stored.image, reference.image), (stored.label, reference.label)):
        canonical = nib.as_closest_canonical(nib.Nifti1Image(array, stored.affine))
        assert np.array_equal(np.asarray(canonical.dataobj), expected)
        assert np.allclose(canonical.affine, reference.affine)


def test_anatomy_does_not_depend_on_the_grid():
    coarse, fine = make_phantom(4, (32, 32, 16), (12, 12, 14)), make_phantom(4, (56, 56, 56), (7, 7, 4))
    volumes = [(p.label > 0).sum() * abs(np.linalg.det(p.affine[:3, :3])) for p in (coarse, fine)]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.05)


def test_files_are_read_back_by_nibabel_and_monai(tmp_path):
    phantom = make_phantom(0, axcodes="PIR", **FEW)
    save_phantom(phantom, tmp_path / "image.nii.gz", tmp_path / "label.nii.gz")
    for name, array in (("image", phantom.image), ("label", phantom.label)):
        path = tmp_path / f"{name}.nii.gz"
        nifti, loaded = nib.load(path), LoadImage()(path)
        assert nifti.get_data_dtype() == array.dtype and np.array_equal(np.asarray(nifti.dataobj), array)
        assert nifti.header["qform_code"] == nifti.header["sform_code"] == 1
        assert np.allclose(nifti.get_qform(), phantom.affine, atol=1e-3) and np.allclose(
            nifti.get_sform(), phantom.affine
        )
        assert np.array_equal(loaded.numpy(), array) and np.allclose(loaded.affine, phantom.affine)


def test_without_a_label_path_only_the_image_is_written(tmp_path):
    save_phantom(make_phantom(0, **FEW), tmp_path / "image.nii.gz")
    assert [p.name for p in tmp_path.iterdir()] == ["image.nii.gz"]


def test_a_decathlon_folder_loads_in_monai_and_shares_no_patient(tmp_path):
    make_decathlon(tmp_path, training=2, validation=1, test=1, seed=7, **FEW)
    description = json.loads((tmp_path / "dataset.json").read_text())
    assert description["labels"]["1"] == "liver" and description["modality"]["0"] == "CT"
    patients = []
    for part, count in (("training", 2), ("validation", 1), ("test", 1)):
        entries = load_decathlon_datalist(tmp_path / "dataset.json", data_list_key=part)
        assert len(entries) == count
        assert all(Path(entry[key]).is_file() for entry in entries for key in ("image", "label"))
        patients += [entry["patient"] for entry in description[part]]
    assert len(set(patients)) == 4
    assert np.array_equal(np.asarray(nib.load(tmp_path / entries[0]["image"]).dataobj), make_phantom(10, **FEW).image)


def test_a_grid_may_be_tiny_and_uneven():
    assert make_phantom(0, (1, 1, 1), (1, 1, 1)).image.shape == (1, 1, 1)
    phantom = make_phantom(0, (5, 3, 2), (100, 110, 4), axcodes=("S", "P", "L"))
    assert phantom.image.shape == (2, 3, 5) and np.ptp(phantom.image) > 800  # air and body


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"region": "head"}, "region is 'head'.*abdomen"),
        ({"phase": "late"}, "phase is 'late'.*portal"),
        ({"axcodes": "LPL"}, "axcodes is 'LPL'"),
        ({"axcodes": "XYZ"}, "axcodes"),
        ({"shape": (64, 64)}, "three positive"),
        ({"spacing": (1, 0, 1)}, "three positive"),
    ],
)
def test_wrong_arguments_are_refused_by_name(wrong, message):
    with pytest.raises(ValueError, match=message):
        make_phantom(**{**FEW, **wrong})
