"""The transforms that MONAI lacks, beside MONAI's own."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd
from monai.transforms import Spacingd as MonaiSpacingd

from scripts.transforms import LargestComponentd, Spacingd

PIXDIM = (2.0, 2.0, -1.0)


def volume(name: str = "ct.nii.gz") -> MetaTensor:
    x, y, z = (torch.linspace(0, 3, n) for n in (18, 14, 5))
    array = torch.sin(x[:, None, None]) + torch.cos(y[:, None]) + z
    affine = torch.diag(torch.tensor([-1.5, 1.0, 4.0, 1.0], dtype=torch.float64))
    return MetaTensor(array[None], affine=affine, meta={"filename_or_obj": name})


def test_a_path_beside_the_image_as_in_monai_label_breaks_monais_spacing_but_not_ours():
    item = {"image": volume(), "image_path": "/studies/ct.nii.gz", "image_count": 3}
    with pytest.raises(AttributeError, match="update"):  # once MONAI has mended this, ours can go
        MonaiSpacingd("image", PIXDIM)(item)
    spaced = Spacingd("image", PIXDIM)(item)
    assert (spaced["image_path"], spaced["image_count"]) == ("/studies/ct.nii.gz", 3)
    clean = MonaiSpacingd("image", PIXDIM)({"image": volume()})
    assert torch.equal(spaced["image"], clean["image"])
    assert torch.equal(spaced["image"].affine, clean["image"].affine)


def test_on_clean_items_it_is_monais_spacing():
    def item():
        return {"image": volume(), "label": volume() > 2, "image_meta_dict": {"kept": 1}, "patient": "p"}

    options = {"keys": ("image", "label"), "pixdim": PIXDIM, "mode": ("bilinear", "nearest"), "dtype": torch.float32}
    ours, monais = Spacingd(**options)(item()), MonaiSpacingd(**options)(item())
    assert ours.keys() == monais.keys()
    for key in ("image", "label"):
        assert ours[key].shape == (1, 14, 8, 5)
        assert torch.equal(ours[key], monais[key])
        assert torch.equal(ours[key].affine, monais[key].affine)
    assert ours["image_meta_dict"].keys() == monais["image_meta_dict"].keys()
    assert "affine" in ours["image_meta_dict"]  # MONAI's update still happens


def test_its_result_goes_back_to_the_scans_grid_through_invertd():
    forward = Compose([Spacingd("image", PIXDIM)])
    item = forward({"image": volume(), "image_path": "ct.nii.gz"})
    assert item["image"].shape == (1, 14, 8, 5)
    item["pred"] = item["image"].clone()
    back = Invertd("pred", transform=forward, orig_keys="image", nearest_interp=False)(item)["pred"]
    assert back.shape == volume().shape
    assert torch.allclose(back.affine, volume().affine)
    assert (back - volume()).abs().mean() < 0.05


def test_all_but_the_largest_component_of_a_probability_is_set_to_none():
    probability = torch.zeros(1, 8, 8, 2)
    probability[0, :3] = 0.9
    probability[0, 3] = 0.2  # the kept component's border
    probability[0, 4] = 0.3
    probability[0, 6:] = 0.8
    before = probability.clone()
    kept = LargestComponentd("pred")({"pred": probability})["pred"]
    assert torch.equal(kept[0, :6], before[0, :6]) and not kept[0, 6:].any()
    assert torch.equal(probability, before)
    assert not LargestComponentd("pred", threshold=0.95)({"pred": before})["pred"].ne(before).any()


def two_blocks(mm=(2.0, 2.0, 2.0)):
    """A block of 20 x 20 x 20 voxels, a thread of 2 x 2 from it, and a block of 10 x 10 x 10 on the thread's end."""
    probability = torch.zeros(1, 60, 30, 30)
    probability[0, 5:25, 5:25, 5:25] = 0.9
    probability[0, 25:40, 14:16, 14:16] = 0.9
    probability[0, 40:50, 10:20, 10:20] = 0.9
    return {"pred": probability, "image": MetaTensor(probability, affine=torch.diag(torch.tensor([*mm, 1.0])))}


def test_what_hangs_on_the_liver_by_a_thread_is_cut_off():
    data = two_blocks()
    before = data["pred"].clone()
    assert torch.equal(LargestComponentd("pred")(data)["pred"], before)
    kept = LargestComponentd("pred", opening_mm=5.0)(data)["pred"]
    assert torch.equal(data["pred"], before)
    assert not kept[0, 25:].any()
    lost = (before[0, :25] - kept[0, :25]).count_nonzero()
    assert 0 < lost < 0.03 * 20**3  # a block's edges and corners hold no ball
    assert torch.equal(kept[0, 5:25, 9:21, 9:21], before[0, 5:25, 9:21, 9:21])


def test_the_ball_is_measured_in_millimetres():
    cut = LargestComponentd("pred", opening_mm=5.0)
    assert cut(two_blocks(mm=(2.0, 6.0, 6.0)))["pred"][0, 45, 15, 15] == 0.9  # a thread of 12 mm
    assert not cut(two_blocks(mm=(2.0, 6.0, 2.0)))["pred"][0, 45, 15, 15]


def test_a_liver_thinner_than_the_ball_and_one_that_the_scan_cuts_off_stay():
    data = two_blocks()
    data["pred"] = torch.zeros(1, 60, 30, 30)
    data["pred"][0, 5:9, 5:9] = 0.9
    data["pred"][0, 20:30, 20:22, 3:5] = 0.8
    kept = LargestComponentd("pred", opening_mm=5.0)(data)["pred"]
    assert kept[0, 5:9, 5:9].all() and not kept[0, 20:30].any()  # no ball fits: the largest component
    data["pred"] = torch.full((1, 60, 30, 30), 0.9)
    assert LargestComponentd("pred", opening_mm=5.0)(data)["pred"].all()
    data["pred"][0, :, :, 2:] = 0.0  # two slices at the scan's end: above may be more
    assert LargestComponentd("pred", opening_mm=3.0)(data)["pred"][..., :2].all()
