"""The liver found first, then looked at: the same as looking at everything, for less."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.inference import AxialInferer
from scripts.localizing import NO_LIVER, LiverFirstInferer


class Bright(torch.nn.Module):
    """Takes for liver what is brighter than a half, and counts the pixels that it was shown."""

    seen = 0

    def forward(self, x):
        self.seen += x.numel()
        return 10 * (x - 0.5)


def volume(*boxes, shape=(96, 80, 60), mm=(2.0, 2.0, 2.0)):
    """`(1, 1, X, Y, Z)` of zeros with boxes of ones."""
    x = torch.zeros(1, 1, *shape)
    for box in boxes:
        x[0, 0][tuple(slice(*side) for side in box)] = 1.0
    return MetaTensor(x, affine=torch.diag(torch.tensor([*mm, 1.0])))


LIVER = ((30, 60), (30, 60), (25, 40))


def both(x):
    """Logits and pixels seen, of the pass over everything and of the two passes."""
    results = []
    for inferer in (AxialInferer(amp=False), LiverFirstInferer(amp=False)):
        network = Bright()
        results.append((inferer(x, network), network.seen))
    return results


def test_what_is_found_is_what_a_look_at_everything_finds_for_less_than_half_the_pixels():
    (whole, all_pixels), (found, pixels) = both(volume(LIVER, shape=(96, 96, 90)))
    assert whole.gt(0).sum() == 30 * 30 * 15
    assert torch.equal(found > 0, whole > 0)
    assert pixels < all_pixels / 2
    seen = found > NO_LIVER
    assert torch.equal(found[seen], whole[seen])
    assert 0 < seen.sum() < seen.numel()


@pytest.mark.parametrize(
    "tail",
    [
        ((30, 31), (30, 31), (0, 60)),  # along the body
        ((0, 96), (30, 31), (30, 31)),  # within slices
        ((31, 32), (0, 80), (31, 32)),
    ],
    ids=["along", "across", "deep"],
)
def test_a_thin_part_that_the_coarse_view_misses_is_followed_to_its_end(tail):
    (whole, _), (found, _) = both(volume(LIVER, tail))
    assert torch.equal(found > 0, whole > 0)


def test_a_thin_part_alone_is_not_seen_by_the_coarse_view_so_that_the_following_is_what_finds_it():
    (whole, _), (found, _) = both(volume(((30, 31), (30, 31), (0, 60))))
    assert whole.gt(0).sum() == 60
    assert not found.gt(0).any()


def test_where_nothing_is_found_nothing_is_looked_at_twice():
    (whole, all_pixels), (found, pixels) = both(volume())
    assert found.shape == whole.shape
    assert (found == NO_LIVER).all()
    assert pixels < all_pixels / 10


def test_a_small_part_far_from_the_largest_is_left_out():
    (whole, _), (found, _) = both(volume(LIVER, ((80, 88), (4, 12), (50, 56)), shape=(96, 80, 90)))
    assert whole[0, 0, 84, 8, 52] > 0
    assert found[0, 0, 84, 8, 52] == NO_LIVER


def test_the_margin_and_the_step_are_millimetres():
    network = Bright()
    x = volume(LIVER, mm=(2.0, 2.0, 10.0))
    found = LiverFirstInferer(amp=False, step_mm=10.0, margin_mm=20.0)(x, network)
    where = (found > NO_LIVER)[0, 0].nonzero()
    assert where.amin(0).tolist() == [20, 20, 22]  # 10 pixels, 2 slices; and one, as the liver may begin before a slice
    assert where.amax(0).tolist() == [69, 69, 41]
    coarse = 48 * 48 * 60  # 40 padded to a multiple of 16
    assert network.seen == coarse + 64 * 64 * 20


def test_each_volume_of_a_batch_is_looked_at_on_its_own():
    x = torch.cat([volume(LIVER), volume(((10, 40), (10, 40), (5, 20))), volume()])
    found = LiverFirstInferer(amp=False)(x, Bright())
    assert torch.equal(found > 0, torch.as_tensor(x) > 0.5)


def test_slices_are_seen_whole():
    x = torch.rand(3, 1, 40, 50)
    assert torch.equal(LiverFirstInferer(amp=False)(x, Bright()), AxialInferer(amp=False)(x, Bright()))
