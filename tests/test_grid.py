"""The network's grid: what is averaged, where voxels lie, and the way back."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd

from scripts.grid import FromGridd, ToGridd

GRID = {"pixel_size": 1.75, "slice_step": 3.0, "slab": 5.0}
WINDOW = {"window_width": 200, "window_level": 60}
CODES = ["".join(axes) for axes in itertools.product("LR", "PA", "IS")]
CODES = ["".join(order) for axes in CODES for order in itertools.permutations(axes)]


def volume(hu, spacing=(0.8, 0.9, 1.2)) -> MetaTensor:
    return MetaTensor(torch.as_tensor(np.ascontiguousarray(hu))[None], affine=np.diag([*spacing, 1.0]))


def ball(shape, spacing, radius=25.0) -> np.ndarray:
    at = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing)), indexing="ij")
    return np.sqrt(sum(axis**2 for axis in at)) < radius


def forth(ct, **options):
    return ToGridd("image", **{**GRID, **WINDOW, **options})({"image": ct})["image"]


def back(values, image, threshold=0.5):
    return FromGridd("pred", "image", threshold)({"pred": values, "image": image})["pred"]


@pytest.fixture(scope="module")
def upright():
    hu = np.random.default_rng(0).normal(60, 60, (40, 36, 22)).astype(np.float32)
    image = nib.Nifti1Image(hu, nib.affines.from_matvec(np.diag([0.8, 0.9, 1.2]), [7, -3, 11]))
    ct = MetaTensor(torch.from_numpy(hu)[None], affine=image.affine)
    return image, forth(ct)


def test_there_are_48_axis_codes():
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("codes", CODES)
def test_all_axis_codes_give_the_same_slices_and_get_the_same_mask_back(upright, codes):
    image, expected = upright
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes))
    turned = image.as_reoriented(turn)
    ct = MetaTensor(torch.from_numpy(np.ascontiguousarray(turned.dataobj))[None], affine=turned.affine)
    slices = forth(ct)
    torch.testing.assert_close(slices.as_tensor(), expected.as_tensor(), atol=1e-5, rtol=0)
    torch.testing.assert_close(slices.affine, expected.affine)
    mask = back(slices, slices)
    assert mask.shape == ct.shape and nib.aff2axcodes(mask.affine.numpy()) == tuple(codes)
    again = nib.as_closest_canonical(nib.Nifti1Image(mask[0].numpy(), mask.affine.numpy()))
    assert np.mean(np.asarray(again.dataobj) != back(expected, expected)[0].numpy()) < 1e-3


def test_noise_is_averaged_before_the_window_clips_it():
    """A dark liver of 0 HU in white noise of 40 HU: a sixth of it is below the window, and its mean must not move."""
    ct = volume(np.random.default_rng(0).normal(0, 40, (128, 128, 40)).astype(np.float32), (0.7, 0.7, 1.0))
    inner = forth(ct)[0, 5:-5, 5:-5, 2:-2]
    assert float(inner.mean()) == pytest.approx(0.2, abs=0.005)
    assert float(inner.std()) * 200 < 40 / 4


def test_without_a_window_values_stay_and_a_constant_is_kept():
    ct = volume(np.full((30, 30, 20), 7, np.int16))
    slices = ToGridd("image", **GRID)({"image": ct})["image"]
    assert slices.dtype == torch.float32 and torch.allclose(slices.as_tensor(), torch.tensor(7.0))


@pytest.mark.parametrize("mm", [0.5, 1.0, 1.6, 2.5])
def test_slabs_lose_nothing_of_a_mask(mm):
    shape, spacing = (100, 100, round(70 / mm)), (0.7, 0.7, mm)
    truth = ball(shape, spacing)
    slices = ToGridd("image", **GRID)({"image": volume(truth.astype(np.float32), spacing)})["image"]
    found = back(slices, slices)[0].numpy() > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.985
    at = np.argwhere(slices[0].numpy() >= 0.5).mean(0)
    middle = (np.array(shape) - 1) / 2 * spacing
    assert nib.affines.apply_affine(slices.affine.numpy(), at) == pytest.approx(middle, abs=0.05)


@pytest.mark.parametrize("mm", [3.0, 5.0, 10.0])
def test_thick_slices_stay_as_they_are(mm):
    hu = np.random.default_rng(0).uniform(-40, 160, (20, 20, 7)).astype(np.float32)
    slices = forth(volume(hu, (1.0, 1.0, mm)), pixel_size=-1)
    np.testing.assert_allclose(slices[0].numpy(), (hu + 40) / 200, atol=1e-6)
    assert slices.affine[2, 2] == pytest.approx(mm)


def test_its_own_grid_is_kept_on_demand():
    hu = np.random.default_rng(0).uniform(-40, 160, (20, 22, 9)).astype(np.float32)
    slices = forth(volume(hu, (0.7, 0.7, 1.0)), pixel_size=-1, slice_step=-1)
    np.testing.assert_allclose(slices[0].numpy(), (hu + 40) / 200, atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_a_volume_thinner_than_a_slab_or_two_goes_forth_and_back(depth):
    truth = ball((60, 60, depth), (1, 1, 1), 20.0)
    image = forth(volume(np.where(truth, 100, -100).astype(np.int16), (1, 1, 1)))
    assert image.shape[3] == max(1, round(depth / 3))
    found = back((image > 0.5).float(), image)[0].numpy()
    assert found.shape == truth.shape and found[..., -1].any()


def test_the_last_slab_averages_what_there_is_of_it():
    """Ten slices of 1 mm in slabs of 5 mm, of which the first one would begin below the volume."""
    hu = np.repeat(np.arange(10, dtype=np.float32), 16).reshape(10, 4, 4).transpose(1, 2, 0)
    slices = ToGridd("image", -1, 3.0, 5.0)({"image": volume(hu, (1, 1, 1))})["image"][0, 0, 0]
    weights = np.clip(np.minimum(np.arange(1, 11), 10 / 6 + 2.5) - np.arange(10), 0, 1)
    assert float(slices[0]) == pytest.approx((weights * np.arange(10)).sum() / weights.sum(), abs=1e-5)
    assert float(slices[1]) == pytest.approx(4.5, abs=1e-5)


def test_the_mask_is_that_of_the_inverse():
    ct = volume(np.where(ball((50, 60, 30), (0.8, 0.9, 1.2), 15), 100, -50).astype(np.float32))
    transform = Compose([ToGridd("image", **GRID, **WINDOW)])
    item = transform({"image": ct})
    item["pred"] = MetaTensor(torch.rand(item["image"].shape))
    mask = FromGridd("pred", "image")(item)["pred"]
    restored = Invertd("pred", transform, "image", nearest_interp=False)(item)["pred"]
    assert mask.dtype == torch.uint8 and torch.equal(mask.as_tensor() > 0, restored.as_tensor() >= 0.5)
    torch.testing.assert_close(restored.affine, ct.affine)


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
def test_the_ct_itself_stays_as_it_is(dtype):
    ct = volume(np.random.default_rng(0).uniform(-1000, 1000, (20, 20, 8))).to(dtype)
    before = ct.clone()
    forth(ct)
    assert torch.equal(ct, before)
