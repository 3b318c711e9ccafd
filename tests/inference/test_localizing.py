"""The liver found first, then looked at: the same as looking at everything, for less."""

import pytest
import torch
from monai.data import MetaTensor

from scripts.inference.axial import AxialInferer
from scripts.inference.localizing import NO_LIVER, LiverFirstInferer, certainty


class Bright(torch.nn.Module):
    """Takes for liver what is brighter than a half, and counts the pixels that it was shown."""

    seen = 0

    def forward(self, x):
        self.seen += x.numel()
        return 10 * (x - 0.5)


def volume(*boxes, shape=(96, 80, 60), mm=(2.0, 2.0, 2.0)):
    """`(1, 1, X, Y, Z)` of dark tissue with boxes of ones."""
    x = torch.full((1, 1, *shape), 1e-4)
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
    (whole, all_pixels), (found, pixels) = both(volume(LIVER, shape=(96, 80, 120)))
    assert whole.gt(0).sum() == 30 * 30 * 15
    assert torch.equal(found > 0, whole > 0)
    assert pixels < all_pixels / 2
    seen = found > NO_LIVER
    assert torch.equal(found[seen], whole[seen])
    assert 0 < seen.sum() < seen.numel() / 4


@pytest.mark.parametrize("end", [(0, 60), (0, 30), (35, 60)], ids=["both ways", "down", "up"])
def test_a_thin_part_that_the_coarse_view_misses_is_followed_to_its_end(end):
    tail = volume(((30, 31), (30, 31), end))
    assert not LiverFirstInferer(amp=False)(tail, Bright()).gt(0).any()  # alone
    (whole, _), (found, _) = both(volume(LIVER, ((30, 31), (30, 31), end)))
    assert torch.equal(found > 0, whole > 0)


@pytest.mark.parametrize("margin", [4, 20, 40])
@pytest.mark.parametrize("way", [(0, 30), (60, 96)], ids=["down", "up"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_thin_part_within_the_slices_is_followed_to_its_end(axis, way, margin):
    tail = [(30, 31), (30, 31), (30, 31)]
    tail[axis] = way
    (whole, _), _ = both(x := volume(LIVER, tail, shape=(96, 96, 60)))
    found = LiverFirstInferer(amp=False, margin_mm=margin)(x, Bright())
    assert torch.equal(found > 0, whole > 0)


def test_the_second_pass_sees_so_many_millimetres_around_the_liver_and_pads_nothing():
    seen = []

    def network(x):
        seen.append(x.shape[2:])
        return 10 * (x - 0.5)

    for mm in (1.0, 2.0):
        x = volume(LIVER, shape=(200, 161, 60), mm=(mm, mm, 2.0))
        found = LiverFirstInferer(amp=False, margin_mm=20)(x, network)
        x, y = ((found > NO_LIVER)[0, 0].any(axis).any(-1).nonzero()[:, 0] for axis in (1, 0))
        for side in (x, y):
            before, behind = 30 - side[0], side[-1] - 59
            assert 20 / mm <= min(before, behind) and before + behind <= 40 / mm + 20, mm
            assert len(side) % 16 == 0
        assert seen[-1] == (len(x), len(y))


def test_where_nothing_is_found_nothing_is_looked_at_twice():
    (whole, all_pixels), (found, pixels) = both(volume())
    assert found.shape == whole.shape
    assert (found == NO_LIVER).all()
    assert pixels <= all_pixels / 5


def test_a_small_part_far_from_the_largest_is_left_out():
    (whole, _), (found, _) = both(volume(LIVER, ((80, 88), (4, 12), (80, 86)), shape=(96, 80, 90)))
    assert whole[0, 0, 84, 8, 82] > 0
    assert found[0, 0, 84, 8, 82] == NO_LIVER


def test_the_step_is_in_millimetres():
    for mm, step in ((2.0, 5), (5.0, 2), (10.0, 1), (30.0, 1)):
        network = Bright()
        found = LiverFirstInferer(amp=False)(volume(LIVER, mm=(3.5, 3.5, mm)), network)
        where = (found > NO_LIVER)[0, 0].flatten(0, 1).any(0).nonzero()[:, 0]
        assert 25 - step <= where[0] < 25 and 40 <= where[-1] < 40 + step
        assert network.seen == 96 * 80 * -(-60 // step) + (found > NO_LIVER).sum()


@pytest.mark.parametrize("sides", [(0, 5), (55, 60), (0, 60), (29, 31)], ids=["bottom", "top", "all", "one step"])
def test_a_liver_that_the_view_cuts_is_found(sides):
    (whole, _), (found, _) = both(volume(((20, 60), (20, 60), sides), mm=(2.0, 2.0, 5.0 if sides[0] == 29 else 2.0)))
    assert whole.gt(0).any()
    assert torch.equal(found > 0, whole > 0)


def test_each_volume_of_a_batch_is_looked_at_on_its_own():
    x = torch.cat([volume(LIVER), volume(((10, 40), (10, 40), (5, 20))), volume()])
    found = LiverFirstInferer(amp=False)(x, Bright())
    assert torch.equal(found > 0, torch.as_tensor(x) > 0.5)


def test_each_volume_of_a_batch_has_its_own_spacing():
    """A batch's affine is `(B, 4, 4)`: the steps of the first pass are each volume's own."""
    fine, thick = (volume(LIVER, mm=(2.0, 2.0, mm)) for mm in (2.0, 10.0))
    affines = torch.stack([fine.affine, thick.affine])
    together = MetaTensor(torch.cat([fine, thick]).as_tensor(), affine=affines)
    alone = [LiverFirstInferer(amp=False)(x, Bright()) for x in (fine, thick)]
    assert not torch.equal(*alone)
    assert torch.equal(LiverFirstInferer(amp=False)(together, Bright()), torch.cat(alone))


def test_both_passes_see_the_neighbours_of_a_slice():
    """A network that needs all three planes bright finds what is two planes away from both ends of the liver."""

    class All(torch.nn.Module):
        def forward(self, x):
            return 10 * (x.amin(1, keepdim=True) - 0.5)

    found = LiverFirstInferer(amp=False, seen=[-2, 0, 2])(volume(LIVER), All())
    assert (found > 0)[0, 0, 40, 40].nonzero()[:, 0].tolist() == list(range(27, 38))


def test_slices_are_seen_whole():
    x = torch.rand(3, 1, 40, 50)
    assert torch.equal(LiverFirstInferer(amp=False)(x, Bright()), AxialInferer(amp=False)(x, Bright()))


@pytest.mark.parametrize("mm, coarse", [(0.5, 0.715), (1.0, 1.43), (1.75, 2.5), (2.25, 2.5), (3.0, 3.0)])
def test_the_first_pass_is_not_much_coarser_than_what_the_network_knows(mm, coarse):
    sizes = []

    def network(x):
        sizes.append(x.shape[2:])
        return x

    LiverFirstInferer(divisor=1, amp=False)(volume(shape=(96, 80, 60), mm=(mm, mm, 2.0)), network)
    assert mm * 96 / sizes[0][0] == pytest.approx(coarse, rel=0.02)
    assert mm * 80 / sizes[0][1] == pytest.approx(coarse, rel=0.02)


def test_the_first_pass_leaves_out_the_air_around_the_body():
    sizes, results = [], []
    for shape in ((112, 96, 60), (192, 160, 60)):
        x = torch.zeros(1, 1, *shape)
        x[:, :, 8:104, 8:88] = volume(LIVER).as_tensor()  # eight pixels of air stay
        network = Bright()
        results.append(LiverFirstInferer(amp=False)(MetaTensor(x, affine=volume().affine), network))
        sizes.append(network.seen)
    assert sizes[0] == sizes[1]
    small, large = results
    assert torch.equal(large[:, :, :112, :96] > 0, small > 0) and (large > 0).sum() == 30 * 30 * 15


def test_a_part_from_a_tenth_of_the_largest_is_not_lost_by_the_first_pass():
    """Slices 2 to 8 hold a part of a seventh of the liver's size, which the second pass would not reach by itself."""
    part = ((33, 47), (33, 47), (0, 10))
    (whole, _), (found, _) = both(volume(LIVER, part, shape=(96, 80, 90), mm=(2.0, 2.0, 2.0)))
    assert whole[0, 0, 40, 40, 4] > 0 and torch.equal(found > 0, whole > 0)


def test_the_first_pass_looks_at_the_middle_of_what_its_steps_leave_over():
    """60 slices in steps of 5: those from 2 on are seen, so that neither end hides a liver of three slices."""
    for end in ((0, 3), (57, 60)):
        assert LiverFirstInferer(amp=False)(volume(((20, 60), (20, 60), end)), Bright()).gt(0).any(), end


def test_the_first_pass_averages_what_it_makes_coarser():
    """Stripes of one pixel: their mean is a half everywhere, where sampling alone would show them as waves."""
    seen = []

    def network(x):
        seen.append(x)
        return x - 1

    stripes = torch.full((1, 1, 130, 130, 1), 1e-4)
    stripes[:, :, ::2] = 1.0
    LiverFirstInferer(divisor=1, amp=False)(
        MetaTensor(stripes, affine=torch.diag(torch.tensor([1.75, 1.75, 5, 1]))), network
    )
    assert seen[0].shape[2] == 91 and seen[0][0, 0, 5:-5].std() < 0.15  # 0.09, and 0.29 without


class Normed(torch.nn.Module):
    """Normalises, and takes for liver what is bright then; counts the slices that its normalisation adapts to."""

    def __init__(self, gain=4.0):
        super().__init__()
        self.norm, self.gain = torch.nn.BatchNorm2d(1, affine=False), gain
        self.with_liver = []  # shared with all copies
        self.eval()

    def __deepcopy__(self, memo):
        copy = Normed(self.gain)
        copy.with_liver = self.with_liver
        return copy

    def forward(self, x):
        if self.norm.training:
            self.with_liver += (x.amax((1, 2, 3)) > 0.5).tolist()
        return self.gain * (self.norm(x) - 0.5)


def test_an_unsure_network_adapts_to_slices_with_and_without_liver_of_this_ct():
    x, network = volume(LIVER), Normed()
    before = LiverFirstInferer(amp=False, certain=0)(x, network)
    assert not network.with_liver
    after = LiverFirstInferer(amp=False)(x, network)
    assert len(network.with_liver) == 12 and sum(network.with_liver) == 6
    assert torch.equal(after > 0, before > 0) and torch.equal(after > 0, x > 0.5)
    assert certainty(before[0]) < certainty(after[0])
    assert network.norm.running_mean == 0 and network.norm.running_var == 1, "the network itself was changed"


class Other(Normed):
    """Takes, once it is adapted, only tissue of a given brightness for liver."""

    def __init__(self, taken):
        super().__init__()
        self.taken = taken

    def __deepcopy__(self, memo):
        return Other(self.taken)

    def forward(self, x):
        first = super().forward(x)
        return first if self.norm.running_mean == 0 else torch.where((x - self.taken).abs() < 0.1, 10.0, -10.0)


@pytest.mark.parametrize(
    ("taken", "used"), [(0.9, True), (0.3, False), (0.5, False)], ids=["a part of the first", "elsewhere", "nothing"]
)
def test_the_adapted_answer_is_used_if_it_lies_where_the_first_one_does(taken, used):
    box, region, elsewhere = (
        volume(at).as_tensor() for at in (LIVER, ((8, 88), (8, 40), (10, 50)), ((70, 90), (50, 70), (25, 40)))
    )
    x = torch.maximum(torch.maximum(0.9 * box, 0.7 * region), 0.3 * elsewhere)
    x = MetaTensor(x, affine=volume().affine)
    found = LiverFirstInferer(amp=False)(x, Other(taken))
    assert torch.equal(found > 0, x > (0.8 if used else 0.5))


@pytest.mark.parametrize(
    ("x", "network"),
    [(volume(LIVER), Normed(100)), (volume(), Normed()), (volume(LIVER), Bright())],
    ids=["sure", "no liver found", "no normalisation"],
)
def test_otherwise_no_network_is_adapted(x, network):
    found = LiverFirstInferer(amp=False)(x, network)
    assert not getattr(network, "with_liver", [])
    assert torch.equal(found, LiverFirstInferer(amp=False, certain=0)(x, network))
