"""A CT in, a liver mask out: `configs/inference.json` with the shipped weights, through `monai.bundle`."""

import os
import subprocess
import sys
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
from monai.bundle import run
from series_files import write_series

from scripts.phantom import make_phantom, save_phantom

BUNDLE = Path(__file__).resolve().parents[1] / "ravnet_bundle"


def segment(source, target, **overrides):
    run(
        config_file=str(BUNDLE / "configs" / "inference.json"),
        bundle_root=str(BUNDLE),
        dataset_dir=str(source),
        output_dir=str(target),
        **overrides,
    )


def read(path):
    image = nib.load(path)
    return image, np.asarray(image.dataobj)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def milliliters(mask, affine):
    return mask.sum() * abs(np.linalg.det(affine)) / 1000


def test_a_phantom_is_segmented_on_its_own_grid(tmp_path):
    phantom = make_phantom(seed=2, shape=(128, 128, 40), spacing=(3, 3, 6))
    save_phantom(phantom, tmp_path / "ct.nii.gz")
    segment(tmp_path / "ct.nii.gz", tmp_path / "out")
    assert os.listdir(tmp_path / "out") == ["ct_liver.nii.gz"]
    image, mask = read(tmp_path / "out" / "ct_liver.nii.gz")
    np.testing.assert_allclose(image.affine, phantom.affine, atol=1e-5)
    assert mask.dtype == np.uint8 and mask.shape == phantom.label.shape and set(np.unique(mask)) == {0, 1}
    assert dice(mask > 0, phantom.label > 0) > 0.88  # a phantom's


def test_a_pelvis_has_no_liver(tmp_path):
    save_phantom(make_phantom(seed=2, region="pelvis", shape=(128, 128, 30), spacing=(3, 3, 6)), tmp_path / "ct.nii.gz")
    segment(tmp_path / "ct.nii.gz", tmp_path / "out")
    image, mask = read(tmp_path / "out" / "ct_liver.nii.gz")
    assert milliliters(mask, image.affine) < 20


def test_a_list_of_paths_is_segmented_as_the_zoos_users_give_it(tmp_path):
    for name in ("a", "b"):
        save_phantom(make_phantom(seed=1, shape=(48, 48, 12), spacing=(8, 8, 15)), tmp_path / f"{name}.nii.gz")
    listed = f"$sorted(glob.glob('{tmp_path}/*.nii.gz'))"
    segment(tmp_path / "nowhere", tmp_path / "out", datalist=listed, pixel_size=8)
    assert sorted(os.listdir(tmp_path / "out")) == ["a_liver.nii.gz", "b_liver.nii.gz"]


CODES = ("RAS", "LPS", "LAS", "RPI", "PIR", "SAR", "ILP", "ASL")


def test_eight_orientations_and_four_formats_give_one_mask_in_the_world(tmp_path):
    source = tmp_path / "ct"
    source.mkdir()
    make = {"seed": 4, "shape": (96, 96, 20), "spacing": (4, 4, 9)}
    for codes in CODES:
        save_phantom(make_phantom(axcodes=codes, **make), source / f"{codes}.nii.gz")
    phantom = make_phantom(axcodes="LPS", **make)
    write_series(phantom.image, phantom.affine, source / "dicom")
    for extension in ("nrrd", "mha"):
        itk.imwrite(itk.imread(str(source / "LPS.nii.gz")), str(source / f"{extension}.{extension}"))
    segment(source, tmp_path / "out")
    masks, affine = {}, nib.as_closest_canonical(nib.load(source / "RAS.nii.gz")).affine
    for path in (tmp_path / "out").iterdir():
        canonical = nib.as_closest_canonical(nib.load(path))
        masks[path.name.removesuffix("_liver.nii.gz")] = canonical.get_fdata() > 0
        np.testing.assert_allclose(canonical.affine, affine, atol=1e-2)
    assert set(masks) == {*CODES, "dicom", "nrrd", "mha"}
    assert masks["RAS"].any()
    for name, mask in masks.items():
        assert dice(mask, masks["RAS"]) > 0.999, name


def test_the_largest_component_can_be_switched_off(tmp_path):
    """Two bodies side by side have two livers; the largest component keeps one."""
    one = make_phantom(seed=5, shape=(96, 96, 16), spacing=(4, 4, 10), axcodes="RAS")
    two = one._replace(image=np.concatenate([one.image, one.image]), label=np.concatenate([one.label, one.label]))
    save_phantom(two, tmp_path / "two.nii.gz")
    segment(tmp_path / "two.nii.gz", tmp_path / "largest", diffusion_mm=0)
    segment(tmp_path / "two.nii.gz", tmp_path / "all", diffusion_mm=0, largest_component=False)
    largest, everything = (read(tmp_path / name / "two_liver.nii.gz")[1] > 0 for name in ("largest", "all"))
    assert everything[:96].any() and everything[96:].any()
    assert largest[:96].any() != largest[96:].any()
    assert not (largest & ~everything).any()


def test_a_wrong_input_ends_in_one_line_with_nothing_written(tmp_path):
    path = tmp_path / "ct.nii.gz"
    save_phantom(make_phantom(seed=1, shape=(48, 48, 12), spacing=(8, 8, 15)), path)
    path.write_bytes(path.read_bytes()[:2000])
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    ended = subprocess.run(
        [*command, "--dataset_dir", str(path), "--output_dir", str(tmp_path / "out")],
        cwd=BUNDLE,
        capture_output=True,
        text=True,
    )
    told = ended.stdout + ended.stderr
    errors = [line for line in told.splitlines() if "error" in line.lower()]
    assert ended.returncode == 1
    assert errors == [f"error: {path}: cannot be read: truncated, or not .nii, .nii.gz, .nrrd, .mha, .mhd or DICOM."]
    assert "Traceback" not in told and not (tmp_path / "out").exists()


def test_a_hospital_ct_is_segmented_from_its_dicom_folder(data_dir, tmp_path):
    segment(data_dir / "chaos_ct" / "dicom", tmp_path)
    found, expert = (
        nib.as_closest_canonical(nib.load(path))
        for path in (tmp_path / "dicom_liver.nii.gz", data_dir / "chaos_ct" / "liver.nii.gz")
    )
    np.testing.assert_allclose(found.affine, expert.affine, atol=1e-2)
    assert dice(found.get_fdata() > 0, expert.get_fdata() > 0) >= 0.94
