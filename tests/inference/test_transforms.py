"""The largest component of a probability."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.inference.transforms import LargestComponentd, Smoothd


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


def test_smoothing_is_in_millimetres_and_a_cut_liver_keeps_its_end():
    ball = torch.zeros(1, 40, 40, 30)
    ball[0, 10:30, 10:30, 15:] = 1.0
    affine = torch.diag(torch.tensor([1.0, 2.0, 4.0, 1.0]))
    data = {"pred": ball, "image": MetaTensor(ball.clone(), affine=affine)}
    smooth = Smoothd("pred", sigma_mm=2.0)(data)["pred"]
    assert torch.equal(data["pred"][0, 10:30, 10:30, 15:], torch.ones(20, 20, 15))  # the input stays
    assert smooth[0, 20, 20, -1] > 0.99
    # one SD outside a straight edge of 1: half a voxel and one SD from its middle
    for axis, at in ((0, (31, 20, 25)), (1, (20, 30, 25))):
        mm = float(affine[axis, axis])
        distance = (at[axis] - 29.5) * mm
        expected = 0.5 * torch.erfc(torch.tensor(distance / 2 / 2**0.5))
        assert float(smooth[0][at]) == pytest.approx(float(expected), abs=0.05)
    assert torch.equal(smooth >= 0.5, ball >= 0.5) or ((smooth >= 0.5) ^ (ball >= 0.5)).sum() < 0.02 * ball.sum()
    assert Smoothd("pred", sigma_mm=0)(data)["pred"] is ball
