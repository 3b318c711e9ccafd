"""The transforms that MONAI lacks, beside MONAI's own."""

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, Invertd
from monai.transforms import Spacingd as MonaiSpacingd

from scripts.transforms import LargestComponentd, RandEllipsesd, RandSlicesd, Spacingd

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


DEPTH, LIVER = 12, (4, 5, 6)


def item(*liver: int) -> dict:
    """A volume in which every voxel of a slice holds the slice's number."""
    image = torch.arange(DEPTH).expand(1, 6, 4, DEPTH).clone().float()
    label = torch.zeros(1, 6, 4, DEPTH, dtype=torch.uint8)
    label[:, 2, 1, list(liver)] = 1
    return {"image": MetaTensor(image), "label": MetaTensor(label), "patient": "p"}


def draw(share: float, seed: int = 0, liver: tuple[int, ...] = LIVER, number: int = 200) -> list[int]:
    slices = RandSlicesd(("image", "label"), "label", number, share).set_random_state(seed)
    return [int(part["image"][0, 0, 0]) for part in slices(item(*liver))]


def test_slices_are_two_dimensional_and_of_one_place():
    parts = RandSlicesd(("image", "label"), "label", 20, 0.5)(item(*LIVER))
    assert len(parts) == 20
    for part in parts:
        assert part["image"].shape == part["label"].shape == (1, 6, 4)
        assert type(part["image"]) is type(part["label"]) is torch.Tensor
        assert part["image"].unique().numel() == 1
        assert part["label"].any() == (int(part["image"][0, 0, 0]) in LIVER)
        assert part["patient"] == "p"


def test_a_share_of_one_gives_liver_alone_and_a_share_of_none_any_slice():
    assert set(draw(1.0)) == set(LIVER)
    assert set(draw(0.0)) == set(range(DEPTH))
    share = np.isin(draw(0.6, number=2000), LIVER).mean()
    assert share == pytest.approx(0.6 + 0.4 * 3 / 12, abs=0.04)


def test_a_volume_without_liver_gives_any_slice():
    assert set(draw(1.0, liver=())) == set(range(DEPTH))


def test_the_same_seed_draws_the_same_slices():
    assert draw(0.5, 7) == draw(0.5, 7)
    assert draw(0.5, 7) != draw(0.5, 8)


def test_the_volume_stays_as_it_was():
    volumes = item(*LIVER)
    before = volumes["image"].clone()
    RandSlicesd(("image", "label"), "label", 3, 0.5)(volumes)
    assert volumes["image"].shape == (1, 6, 4, DEPTH)
    assert torch.equal(volumes["image"], before)


def test_a_loader_batches_the_slices_of_all_its_scans():
    slices = RandSlicesd(("image", "label"), "label", 3, 1.0)
    batch = next(iter(DataLoader(Dataset([item(*LIVER), item(8)], slices), batch_size=2)))
    assert batch["image"].shape == (6, 1, 6, 4)
    assert batch["label"].flatten(1).any(1).all()


def body() -> dict[str, torch.Tensor]:
    """A slice of brightness 0.3 with a margin of air, and a liver in its middle."""
    image, label = torch.zeros(1, 64, 48), torch.zeros(1, 64, 48)
    image[:, 4:60, 4:44] = 0.3
    label[:, 20:40, 10:40] = 1
    return {"image": image, "label": label}


def test_ellipses_beside_the_liver_leave_it_alone():
    drawn = RandEllipsesd("image", "label", prob=1.0, number=1, opacity=(0.5, 0.5)).set_random_state(0)
    levels, shares = [], []
    for _ in range(40):
        before = body()
        image = drawn(body())["image"]
        changed = image != before["image"]
        assert not (changed & (before["label"] > 0)).any()
        shares.append(float(changed.float().mean()))
        inside = changed & (before["image"] > 0)
        levels += image[inside].unique().tolist()
    assert 0.02 < sum(shares) / 40 < 0.6
    # half what was there, half a brightness from 0 to 1.4
    assert 0.15 <= min(levels) < 0.35 and 0.65 < max(levels) <= 0.85


def test_ellipses_without_a_label_lie_on_the_liver_too_and_are_at_most_number():
    drawn = RandEllipsesd("image", prob=1.0, number=3, radius=(2.0, 4.0), opacity=(1.0, 1.0)).set_random_state(0)
    counts, on_liver = set(), 0
    for _ in range(60):
        result = drawn(body())
        assert torch.equal(result["label"], body()["label"])
        counts.add(len(set(result["image"].unique().tolist()) - {0.0, body()["image"].max().item()}))
        on_liver += bool((result["image"] != body()["image"])[body()["label"] > 0].any())
    assert {1, 2, 3} <= counts and max(counts) == 3
    assert on_liver > 10


def test_ellipses_are_drawn_by_their_probability_and_an_empty_slice_is_no_error():
    never = RandEllipsesd("image", "label", prob=0.0)
    assert torch.equal(never(body())["image"], body()["image"])
    empty = torch.zeros(1, 16, 16)
    assert RandEllipsesd("image", prob=1.0)({"image": empty})["image"].shape == empty.shape


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
