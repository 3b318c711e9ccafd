"""Bowel full of contrast agent beside the liver: removed; what is white and liver: kept."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.inference.bowel import BowelContrastd

MM = np.array([1.75, 1.75, 3.0])
SHAPE = (90, 70, 40)
LIVER, WHITE = 0.6, 2.0  # contrast agent lies far above the window's end


def ball(centre, radius):
    at = np.meshgrid(*(np.arange(n) * mm for n, mm in zip(SHAPE, MM)), indexing="ij")
    return sum((a - c) ** 2 for a, c in zip(at, centre)) <= radius**2


LIVER_BALL = ball((60, 60, 60), 45)


def after(*white, liver=LIVER, noise=0.0):
    """A liver, white balls that the network took for liver too, and what is left of both."""
    image, found = np.full(SHAPE, 0.4, np.float32), LIVER_BALL.copy()
    image[found] = liver
    for part in white:
        image[part], found = WHITE, found | part
    image = np.clip(image + noise * np.random.default_rng(0).normal(size=SHAPE), 0, 1).astype(np.float32)
    affine = np.diag([*MM, 1])
    item = {"image": MetaTensor(torch.from_numpy(image)[None], affine=affine)}
    item["pred"] = MetaTensor(torch.from_numpy(np.where(found, 0.9, 0.1).astype(np.float32))[None], affine=affine)
    return found, BowelContrastd("pred")(item)["pred"][0].numpy() >= 0.5


@pytest.mark.parametrize("noise", [0.0, 0.2], ids=["quiet", "noise of 40 HU"])
def test_white_bowel_at_the_livers_side_is_removed_and_the_liver_stays(noise):
    colon = ball((122, 60, 60), 18) & ~LIVER_BALL
    _, left = after(colon, noise=noise)
    assert np.count_nonzero(left & colon) < 0.15 * np.count_nonzero(colon)  # its rim: the opening's work
    assert np.count_nonzero(left & LIVER_BALL) > 0.99 * np.count_nonzero(LIVER_BALL)


def test_a_white_lesion_within_the_liver_stays():
    found, left = after(ball((70, 60, 60), 18))
    assert np.array_equal(left, found)


def test_a_white_vein_at_the_livers_side_stays():
    found, left = after(ball((108, 60, 60), 9))
    assert np.array_equal(left, found)


@pytest.mark.parametrize("liver", [0.85, 1.0])
def test_beside_a_white_liver_nothing_is_removed(liver):
    found, left = after(ball((115, 60, 60), 18), liver=liver)
    assert np.array_equal(left, found)


def test_nothing_found_stays_nothing():
    item = {"image": MetaTensor(torch.ones(1, 8, 8, 8)), "pred": MetaTensor(torch.zeros(1, 8, 8, 8))}
    assert not BowelContrastd("pred")(item)["pred"].any()
