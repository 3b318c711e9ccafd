"""Verdicts on phantoms: their truth as the mask, and what goes wrong with masks and scans."""

import hashlib
import json

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter

from scripts.assessment import Limits, Verdict, measure, observe
from scripts.assessment import judge as judged
from scripts.assessment.judge import CHECKS, DERIVED
from scripts.assessment.observations import calibrated
from scripts.inference.provenance import BUNDLE
from scripts.phantom import make_phantom

LIMITS = Limits("", {}, 1.0, {
    "liver_front_of_middle_percent": (-7.0, None), "expected_dice": (0.98, None), "border_width_mm": (None, 2.2),
    "repeat_dice": (0.96, None), "area_step_percent": (None, 12.0), "changed_by_3d_percent": (None, 5.0),
})  # fmt: skip


def judge(observed, doubts=()):
    return judged(observed, LIMITS, doubts)


class Scene:
    """A phantom, its truth, and a network that knows the liver by its brightness, on the CT's own grid."""

    def __init__(self):
        phantom = make_phantom(3, (108, 88, 32), (3.4, 3.4, 8.0), axcodes="RAS")
        self.affine, self.hu = phantom.affine, phantom.image.astype(np.float32)
        self.truth = phantom.label > 0
        self.hu[self.truth] = 100 + (self.hu[self.truth] - 100) / 4  # without vessels and tumours
        body = np.clip((self.hu + 40) / 200, 0, 1)
        self.image = np.where(self.truth, np.float32(1), np.float32(0.5) * body).astype(np.float32)

    def predict(self, volume, at):
        return 1 / (1 + np.exp(-40 * (volume[..., at] - 0.75)))

    def observe(
        self, mask=None, probability=None, hu=None, image=None, affine=None, predict=None, delivered=None, **arguments
    ):
        mask = self.truth if mask is None else mask
        hu, affine = self.hu if hu is None else hu, self.affine if affine is None else affine
        image = self.image if image is None else image
        if probability is None:
            probability = mask.astype(np.float32)
            rim = binary_dilation(mask, np.ones((3, 3, 1))) & binary_dilation(~mask, np.ones((3, 3, 1)))
            probability[rim] = 0.02 + 0.96 * mask[rim]
        delivered = mask.astype(np.float32) if delivered is None else delivered
        measured = measure(hu, mask, affine)
        network = (image, probability, delivered, affine)
        return observe(measured, affine, *network, predict or self.predict, **arguments)


@pytest.fixture(scope="module")
def scene():
    return Scene()


def has(verdict: Verdict, *words: str) -> bool:
    return any(all(word in reason for word in words) for reason in verdict.reasons)


def test_the_truth_of_a_phantom_is_ok(scene):
    observed = scene.observe()
    assert judge(observed) == Verdict("ok", ())
    assert observed["repeat_dice"] > 0.97 and observed["repeat_slices"] == 9
    assert json.loads(json.dumps(observed, allow_nan=False)) == observed


def test_nothing_found_is_rejected(scene):
    nothing = np.zeros_like(scene.truth)
    verdict = judge(scene.observe(nothing))
    assert verdict.level == "reject" and has(verdict, "No liver", "0 ml")
    one = nothing.astype(np.float32)
    one[50, 40, 12] = 1  # a single voxel of the network's
    assert judge(scene.observe(nothing, probability=one)).level == "reject"
    speck = nothing.copy()
    speck[60:63, 40:43, 15:18] = True  # 2.8 ml
    assert judge(scene.observe(speck)).level == "reject"


def test_a_doubt_about_the_affine_costs_the_ok_and_comes_first(scene):
    doubt = "Spacing and axes may be wrong."
    assert judge(scene.observe(), [doubt]) == Verdict("review", (doubt,))
    nothing = judge(scene.observe(np.zeros_like(scene.truth)), [doubt])
    assert nothing.level == "reject" and nothing.reasons[0] == doubt and has(nothing, "No liver")


def test_a_mirrored_scan_is_reviewed(scene):
    verdict = judge(scene.observe(scene.truth[::-1], hu=scene.hu[::-1], image=scene.image[::-1]))
    assert verdict.level == "review" and has(verdict, "left of the body's middle")


def test_a_mask_on_the_wrong_side_is_reviewed(scene):
    assert has(judge(scene.observe(scene.truth[::-1])), "left of the body's middle")


def test_a_scan_turned_front_to_back_is_reviewed(scene):
    turned = {"hu": scene.hu[:, ::-1], "image": scene.image[:, ::-1]}
    straight, back = scene.observe(), scene.observe(scene.truth[:, ::-1], **turned)
    assert back["liver_front_of_middle_percent"] == pytest.approx(-straight["liver_front_of_middle_percent"], abs=2)
    limit = LIMITS.bounds["liver_front_of_middle_percent"][0]
    assert has(judge({**back, "liver_front_of_middle_percent": limit - 0.1}), "far back") and not has(
        judge({**back, "liver_front_of_middle_percent": limit}), "back"
    )


def test_half_a_liver_is_contradicted_by_the_second_look(scene):
    half = scene.truth.copy()
    half[: int(np.median(np.nonzero(half)[0]))] = False
    verdict = judge(scene.observe(half))
    assert verdict.level in ("review", "reject") and has(verdict, "second pass", "Dice 0.")


def test_a_leak_is_contradicted_by_the_second_look(scene):
    leak = scene.truth | np.roll(scene.truth, (-14, -4), (0, 1))
    assert has(judge(scene.observe(leak)), "second pass")


def test_a_second_large_component_is_told_with_its_volume(scene):
    probability = scene.truth.astype(np.float32)
    probability[20:32, 20:34, 8:14] = 1  # 93 ml, in the spleen's place
    expected = 12 * 14 * 6 * 3.4 * 3.4 * 8 / 1000
    observed = scene.observe(probability=probability)
    assert observed["largest_part_apart_ml"] == pytest.approx(expected)
    volume = scene.truth.sum() * 3.4 * 3.4 * 8 / 1000
    assert observed["parts_apart_percent"] == pytest.approx(100 * expected / volume)
    verdict = judge(observed)
    assert verdict.level != "ok" and has(verdict, f"{expected:.0f} ml", "left out")


def test_a_leak_in_one_slice_is_a_jump(scene):
    z = int(np.median(np.nonzero(scene.truth)[2]))
    leak = scene.truth.copy()
    leak[20:84, 20:70, z] = True
    assert has(judge(scene.observe(leak)), "jumps from slice to slice")
    gap = scene.truth.copy()
    gap[20:80, :, z] = False
    assert has(judge(scene.observe(gap)), "jumps from slice to slice")


def test_a_vague_border_is_reviewed_and_a_hopeless_one_rejected(scene):
    vague = gaussian_filter(scene.truth.astype(np.float32), (2.5, 2.5, 0))
    verdict = judge(scene.observe(probability=vague))
    assert verdict.level != "ok" and has(verdict, "border is vague")
    hopeless = np.where(scene.truth, np.float32(0.55), np.float32(0.25 * (scene.image > 0.2)))
    verdict = judge(scene.observe(probability=hopeless))
    assert verdict.level == "reject" and has(verdict, "network is unsure")


def test_the_width_of_a_border_is_in_millimetres():
    """Probabilities that rise linearly over 12 mm: the integral of 4 p (1 - p) across is 12 * 2 / 3 = 8 mm."""
    for pixel in (1.0, 2.0):
        n = int(160 / pixel)
        at = (np.arange(n) - (n - 1) / 2) * pixel
        distance = np.hypot(at[:, None], at[None, :]) - 60
        p = np.clip(0.5 - distance / 12, 0, 1).astype(np.float32)[..., None].repeat(5, 2)
        affine = np.diag([pixel, pixel, 4.0, 1.0])
        measured = measure(np.full(p.shape, 60, np.float32), p >= 0.5, affine)
        observed = observe(measured, affine, np.full(p.shape, 0.5, np.float32), p, p, affine)
        assert observed["border_width_mm"] == pytest.approx(8, rel=0.04)
        both, total = (p * (p >= 0.5)).sum(), p.sum() + (p >= 0.5).sum()
        assert observed["expected_dice"] == pytest.approx(2 * both / total, rel=1e-3)


def test_a_cut_liver_is_reviewed_with_its_side(scene):
    top = int(np.median(np.nonzero(scene.truth)[2]))
    low = np.s_[..., :top]
    verdict = judge(scene.observe(scene.truth[low], hu=scene.hu[low], image=scene.image[low]))
    assert verdict.level == "review" and has(verdict, "cuts the liver (superior)")


@pytest.mark.parametrize("by, word", [(-90, "dark"), (120, "bright")])
def test_hu_of_no_liver_are_reviewed(scene, by, word):
    verdict = judge(scene.observe(hu=scene.hu + np.float32(by)))
    assert verdict.level == "review" and has(verdict, f"liver is {word}")


def test_a_saturated_window_is_told(scene):
    verdict = judge(scene.observe(hu=np.clip(scene.hu, -40, 95)))
    assert has(verdict, "end of the stored window")


def test_noise_is_told(scene):
    noise = np.random.default_rng(0).normal(0, 0.25, scene.image.shape).astype(np.float32)
    quiet, loud = scene.observe(), scene.observe(image=scene.image + noise)
    assert loud["noise_percent_of_window"] == pytest.approx(25, rel=0.05) and quiet["noise_percent_of_window"] < 1
    assert has(judge(loud), "noisy")


def test_volumes_of_no_liver_are_reviewed(scene):
    verdict = judge(scene.observe(affine=scene.affine @ np.diag([1, 1, 0.2, 1])))
    assert verdict.level == "review" and has(verdict, "liver is small")
    verdict = judge(scene.observe(affine=scene.affine @ np.diag([1.8, 1.8, 1, 1])))
    assert verdict.level == "review" and has(verdict, "liver is large")


def test_coarse_and_thick_voxels_are_reviewed(scene):
    coarse = scene.affine @ np.diag([1.5, 1.5, 2, 1])
    verdict = judge(scene.observe(affine=coarse))
    assert has(verdict, "Pixels of 5.1 mm") and has(verdict, "Slices 16.0 mm")
    sagittal = nib.affines.from_matvec(np.array([[0, 0, 8.0], [0, 3.4, 0], [3.4, 0, 0]]))  # S runs along the first axis
    observed = observe(measure(scene.hu, scene.truth, scene.affine), sagittal, *[scene.image] * 3, scene.affine)
    assert (observed["pixel_spacing_mm"], observed["slice_spacing_mm"]) == pytest.approx((8.0, 3.4))


def test_without_a_second_pass_nothing_is_said_of_one(scene):
    measured = measure(scene.hu, scene.truth, scene.affine)
    observed = observe(measured, scene.affine, scene.image, *[scene.truth.astype(np.float16)] * 2, scene.affine)
    assert observed["repeat_dice"] is None and judge(observed).level == "ok"


def test_a_network_that_contradicts_itself_is_rejected(scene):
    verdict = judge(scene.observe(predict=lambda volume, at: np.zeros_like(volume[..., at])))
    assert verdict.level == "reject" and has(verdict, "Dice 0.000")


def test_every_limit_has_its_words_and_a_derived_one_its_bound():
    shipped = Limits.load()
    for check in CHECKS:
        assert (check.low is None or check.below) and (check.high is None or check.above), check.name
        low, high = shipped.bounds.get(check.name, (None, None))
        assert (check.low == DERIVED) == (low is not None) and (check.high == DERIVED) == (high is not None), check.name


def test_the_shipped_limits_are_of_the_shipped_weights_and_the_configs_grid():
    config = json.loads((BUNDLE / "configs" / "inference.json").read_text())
    grid = {name: config[name] for name in ("pixel_size", "slice_step", "slab")}
    limits = Limits.load()
    assert limits.doubts(hashlib.sha256((BUNDLE / "models" / "model.pt").read_bytes()).hexdigest(), grid) == []
    assert has(Verdict("review", tuple(limits.doubts("other", grid))), "weights", "derive")
    assert has(Verdict("review", tuple(limits.doubts(limits.weights, grid | {"slab": 9.0}))), "grid", "derive")


def test_what_the_steps_after_the_network_changed_is_judged(scene):
    """The mask that is delivered has a part that the network never saw: 93 ml in the place of the spleen."""
    delivered = scene.truth.copy()
    delivered[20:32, 20:34, 8:14] = True
    probability = scene.truth.astype(np.float32)
    observed = scene.observe(delivered, probability=probability)
    added = 12 * 14 * 6 / np.count_nonzero(delivered)
    assert observed["changed_by_3d_percent"] == pytest.approx(100 * added)
    assert observed["expected_dice"] == pytest.approx(2 * scene.truth.sum() / (scene.truth.sum() + delivered.sum()))
    assert judge(observed).level != "ok" and has(judge(observed), "three-dimensional steps changed")


def test_a_temperature_makes_the_network_less_sure_but_changes_no_mask(scene):
    sure, modest = scene.observe(), scene.observe(temperature=3.0)
    assert modest["expected_dice"] < sure["expected_dice"] == modest["uncalibrated_expected_dice"]
    assert calibrated(np.float32([0.5, 0.9, 0.0, 1.0]), 2.0) == pytest.approx([0.5, 0.75, 0.001, 0.999], abs=2e-3)


@pytest.mark.parametrize(
    "name, low, high",
    [
        ("volume_ml", 500, 3500), ("hu_median", 25, 170), ("hu_sd", None, 60), ("hu_saturated_percent", None, 25),
        ("pixel_spacing_mm", None, 3.5), ("slice_spacing_mm", None, 12), ("liver_right_of_middle_percent", 0, None),
        ("parts_apart_percent", None, 3), ("noise_percent_of_window", None, 10),
    ],
)  # fmt: skip
def test_what_is_plausible_ends_where_it_says(scene, name, low, high):
    good = scene.observe()
    for limit, beyond in ((low, -1e-3), (high, 1e-3)):
        if limit is not None:
            assert judge({**good, name: limit}).level == "ok"
            assert judge({**good, name: limit + beyond}).level == "review"


@pytest.mark.parametrize("name, least", [("expected_dice", 0.8), ("repeat_dice", 0.7)])
def test_what_is_hopeless_is_rejected_from_where_it_says(scene, name, least):
    good = scene.observe()
    assert judge({**good, name: least}).level == "review" and judge({**good, name: least - 1e-3}).level == "reject"


def test_no_liver_ends_at_50_ml(scene):
    good = scene.observe()
    assert judge({**good, "volume_ml": 49.9}).level == "reject" and judge({**good, "volume_ml": 50.0}).level == "review"


def test_an_observation_that_is_not_a_number_is_never_ok(scene):
    observed = {**scene.observe(), "border_width_mm": float("nan")}
    assert judge(observed).level == "review"


def test_a_faint_haze_in_the_whole_view_is_left_out_of_the_sums(scene):
    probability = np.maximum(scene.truth.astype(np.float32), 0.04)
    assert scene.observe(probability=probability)["expected_dice"] == 1
    assert scene.observe(probability=np.maximum(scene.truth.astype(np.float32), 0.06))["expected_dice"] < 0.8
