"""Augmentation of a batch: what it changes, what it leaves alone, and that a seed tells all of it."""

from dataclasses import fields, replace

import pytest
import torch

from scripts.training.augmentation import Augmentation, cut, ellipses, shift_liver, thicker
from scripts.training.intensities import HU, Draw, curve, filtered, noise, open_window, shallow_network, streaks

STEPS = [field.name for field in fields(Augmentation) if field.name not in ("size", "pixel_size")]
NOTHING = Augmentation(**dict.fromkeys(STEPS, 0.0))


def body(number: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices `(number, 1, 96, 80)` of brightness 0.4 within a margin of air, a brighter liver on one side of each."""
    images, labels = torch.zeros(number, 1, 96, 80), torch.zeros(number, 1, 96, 80)
    images[:, :, 8:88, 8:72] = 0.4
    labels[:, :, 56:80, 20:60] = 1
    return images + 0.3 * labels, labels


def draw(seed: int = 0) -> Draw:
    return Draw(torch.device("cpu"), torch.Generator().manual_seed(seed))


def test_one_state_of_the_generator_gives_one_batch_and_every_slice_its_own():
    images, labels = body()
    made = [Augmentation((64, 64))(images, labels, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(made[0][0], made[1][0]) and torch.equal(made[0][1], made[1][1])
    assert not torch.equal(made[0][0], made[2][0])
    assert len({bytes(image.numpy()) for image in made[0][0]}) == len(images)
    assert made[0][0].shape == made[0][1].shape == (4, 1, 64, 64)
    assert images.unique().numel() == 3  # what went in is as it was


def test_images_stay_in_the_window_and_labels_are_labels():
    images, labels = body(64)
    every = replace(Augmentation(), **dict.fromkeys(STEPS, 1.0))
    for augmentation in (Augmentation(), every):
        image, label = augmentation(
            images.repeat(1, 3, 1, 1), labels.repeat(1, 3, 1, 1).byte(), torch.Generator().manual_seed(0)
        )
        assert image.shape == label.shape == (64, 3, 96, 80) and image.dtype == label.dtype == torch.float32
        assert image.isfinite().all() and image.min() == 0 and image.max() == 1
        assert set(label.unique().tolist()) == {0, 1}


def test_labels_go_where_their_images_go_and_never_to_the_other_side():
    images, labels = body(64)
    image, label = NOTHING(labels * 0.8, labels, torch.Generator().manual_seed(0))
    assert ((image > 0.4) != (label > 0)).float().mean() < 0.002
    image, label = NOTHING(images, labels, torch.Generator().manual_seed(0))
    rows = torch.arange(96.0)[:, None]
    inside = (image > 0.2).float()
    shift = (label * rows).sum((1, 2, 3)) / label.sum((1, 2, 3)) - (inside * rows).sum((1, 2, 3)) / inside.sum(
        (1, 2, 3)
    )
    assert (shift > 0).all()
    sizes = label.sum((1, 2, 3)) / labels.sum((1, 2, 3))
    assert sizes.min() < 0.7 and sizes.max() > 1.3


def test_shifts_keep_their_size_in_mm():
    labels = torch.zeros(64, 1, 96, 80)
    labels[:, :, 40:56, 32:48] = 1

    def reach(pixel_size: float) -> float:
        """How far the square's middle moves, pixels."""
        moved = replace(NOTHING, pixel_size=pixel_size)(labels, labels, torch.Generator().manual_seed(0))[1]
        rows = torch.arange(96) - 47.5
        return ((moved.sum((1, 3)) * rows).sum(1) / moved.sum((1, 2, 3)).clamp(min=1)).std().item()

    assert reach(3.5) == pytest.approx(reach(1.75) / 2, rel=0.15)


def test_the_whole_liver_gets_darker_or_brighter_softly():
    images, labels = body(200)
    change = (shift_liver(images, labels, draw()) - images) / HU
    inside = change[:, 0, 66, 40]
    assert -90 <= inside.min() < -80 and 30 < inside.max() <= 40
    torch.testing.assert_close(change[:, 0, 60:76, 24:56], inside[:, None, None].expand(-1, 16, 32), atol=0.2, rtol=0)
    assert not change[:, :, :50].any()
    edge = change[:, 0, 56, 40] / inside
    assert ((edge > 0.5) & (edge < 0.85)).all()  # the liver's first row


def test_a_livers_change_and_what_spares_it_follow_the_label_of_each_slice():
    """Otherwise the neighbours would tell where the middle slice's label is."""
    images, labels = body(60)
    images, labels = images.repeat(1, 3, 1, 1), labels.repeat(1, 3, 1, 1)
    labels[:, 0] = 0  # the liver begins above
    changed = shift_liver(images, labels, draw()) != images
    assert not changed[:, 0].any() and changed[:, 1:].flatten(1).any(1).all()
    changed = ellipses(images, labels, draw(), 3, (4, 20), (0, 1.4), (0.9, 1), True) != images
    liver = labels[:, 2] > 0
    assert changed[:, 0][liver].any() and not changed[:, 2][liver].any()
    areas = changed.sum((0, 2, 3))
    assert 0 < areas[0] < areas[1] and 0 < areas[2] < areas[1]  # an ellipsoid is smaller beside its middle


def test_thicker_slices_are_more_like_the_middle_one():
    images = torch.tensor([0.0, 0.5, 1.0])[:, None, None].expand(20, 3, 8, 8)
    made = thicker(images, draw())
    assert torch.equal(made[:, 1], images[:, 1])
    assert ((made[:, 2] - made[:, 0] < 1) & (made[:, 2] >= 0.5) & (made[:, 0] <= 0.5)).all()


@pytest.mark.parametrize("spare", [True, False])
def test_ellipses_beside_the_liver_leave_it_alone_and_others_do_not(spare):
    images, labels = body(60)
    changed = ellipses(images, labels, draw(), 3, (4, 20), (0, 1.4), (0.9, 1), spare) != images
    assert changed.flatten(1).any(1).all()
    assert 0.02 < changed.float().mean() < 0.6
    assert (changed & (labels > 0)).any() == (not spare)
    empty = torch.zeros(2, 1, 32, 32)
    assert ellipses(empty, empty, draw(), 3, (4, 20), (0, 1), (1, 1), spare).shape == empty.shape


def test_a_curve_keeps_the_order_and_the_ends():
    ramp = torch.linspace(0, 1, 400).expand(20, 1, 1, 400)
    curved = curve(ramp, draw())
    assert (curved.diff() > 0).all()
    assert not curved[..., 0].any() and torch.allclose(curved[..., -1], torch.ones(20, 1, 1))
    assert (curved - ramp).abs().amax((1, 2, 3)).mean() > 0.05


def test_streaks_run_straight_across_all_slices_of_a_sample():
    images = torch.zeros(4, 3, 64, 64)
    added = streaks(images, draw(), hu=(40, 40))
    assert 20 < added.std() / HU < 120  # some of twelve bands of 40 HU lie over each other
    planes = added.flatten(2) / added.flatten(2).norm(dim=2, keepdim=True)
    assert (planes @ planes.mT > 0.999).all()  # the same bands, weaker or stronger
    for sample in added:
        rises = torch.stack([part.flatten() for part in torch.gradient(sample[0])])
        values = torch.linalg.eigvalsh(rises @ rises.T)
        assert values[0] < 0.02 * values[1]  # one direction


def test_noise_has_its_strength_and_any_grain_and_air_stays_black():
    images, _ = body(300)
    images = images.where(images > 0, open_window(images))
    added = (noise(images, draw()) - images)[:, 0]
    sd = added.std((1, 2)) / HU
    assert sd.min() < 3 and 40 < sd.max() <= 45.01
    neighbours = (added[:, 1:] * added[:, :-1]).mean((1, 2)) / added.var((1, 2))
    assert neighbours.min() < -0.1 and neighbours.max() > 0.8  # a sharp kernel's, and grains
    assert (noise(images, draw())[:, :, :8].clamp(min=0) > 0).float().mean() < 0.03


def test_black_stays_black_in_random_networks_and_filters_blur_and_sharpen():
    images, _ = body(50)
    made = shallow_network(images, draw())
    assert torch.equal(made[images == 0], images[images == 0]) and not torch.equal(made, images)
    across = filtered(images, draw())[:, 0, 40:60, 40]
    steps = across.diff(dim=1).amax(1)
    assert steps.min() < 0.2 < 0.3 < steps.max()  # 0.3 is the liver's edge as it was


def test_where_the_view_is_cut_there_is_no_liver():
    images, labels = body(40)
    image, label = cut(images, labels, draw())
    gone = (image < 0) & (images > 0)
    assert gone.flatten(1).any(1).sum() > 20
    assert not (label[gone] > 0).any()
    assert torch.equal(label[~gone], labels[~gone])
