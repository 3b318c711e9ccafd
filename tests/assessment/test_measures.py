"""Measures of bodies whose numbers are known by hand, and of phantoms on grids from fine to coarse."""

import json
import math

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from scripts.assessment.measures import body_surface_m2, measure, standard_volumes_ml
from scripts.geometry import eroded
from scripts.phantom import make_phantom


def rotation(*degrees):
    """About x, then y, then z."""
    turned = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        one = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        one[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
        turned = one @ turned
    return turned


def ball(radius=40.0, spacing=(2.0, 2.0, 2.0), shape=(60, 60, 60), turn=(0, 0, 0), at=(0.0, 0.0, 0.0)):
    """A ball of 60 HU in fat around the grid's middle (moved by `at` mm): hu, mask, affine."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(*turn) * spacing
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    world = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    mask = (np.linalg.norm(world - np.array(at) - 0.123, axis=-1) <= radius).astype(np.uint8)
    return np.where(mask, np.float32(60), np.float32(-100)), mask, affine


def test_a_ball_has_its_volume_extents_and_is_whole():
    measured = measure(*ball())
    assert measured["volume_ml"] == pytest.approx(4 / 3 * math.pi * 4**3, rel=0.01)
    for name in ("left_right", "posterior_anterior", "inferior_superior"):
        assert measured[f"extent_{name}_mm"] == pytest.approx(80, abs=2)
    assert (measured["partial"], measured["cut_sides"], measured["cut_area_cm2"]) == (False, None, 0)


def test_extents_and_volume_do_not_follow_an_oblique_anisotropic_grid():
    measured = measure(*ball(spacing=(1.2, 1.5, 4.0), shape=(110, 90, 40), turn=(20, -15, 30)))
    assert measured["volume_ml"] == pytest.approx(4 / 3 * math.pi * 4**3, rel=0.01)
    for name in ("left_right", "posterior_anterior", "inferior_superior"):
        assert 80 - 1 < measured[f"extent_{name}_mm"] < 80 + 5  # up to one voxel's box more


def test_extents_of_a_box_are_exact():
    mask = np.zeros((20, 20, 20), np.uint8)
    mask[3:9, 5:15, 7:8] = 1
    affine = nib.affines.from_matvec(np.array([[0, -3.0, 0], [2.0, 0, 0], [0, 0, 5.0]]), (7, 8, 9))  # x runs along y
    measured = measure(np.zeros(mask.shape, np.float32), mask, affine)
    extents = [measured[f"extent_{name}_mm"] for name in ("left_right", "posterior_anterior", "inferior_superior")]
    assert extents == pytest.approx([10 * 3, 6 * 2, 1 * 5])
    assert measured["volume_ml"] == pytest.approx(6 * 10 * 30 / 1000)


def test_the_uncertainty_of_a_ball_is_that_of_its_border_layer():
    """The area that a ball shows to each axis and its opposite is 2 pi r^2: a layer of 2 pi r^2 (dx + dy + dz)."""
    spacing = (1.0, 1.5, 3.0)
    measured = measure(*ball(30, spacing, (80, 60, 30), turn=(10, 20, 30)))
    expected = 2 * math.pi * 3**2 * sum(spacing) / 10 / math.sqrt(12)
    assert measured["volume_uncertainty_ml"] == pytest.approx(expected, rel=0.03)


def test_a_border_moved_by_its_standard_deviation_changes_the_volume_by_the_uncertainty():
    """On an isotropic grid the layer's mean thickness is 1.5 voxels: moving the border by 1.5 d / sqrt(12) adds v F."""
    spacing = 4.0
    moved = 30 + 1.5 * spacing / math.sqrt(12)
    uncertainty = measure(*ball(30, (spacing,) * 3, (30, 30, 30)))["volume_uncertainty_ml"]
    gain = 4 / 3 * math.pi * (moved**3 - 30**3) / 1000
    assert uncertainty == pytest.approx(gain, rel=0.1)


def test_phantoms_on_coarse_grids_agree_with_a_fine_one_within_the_uncertainty():
    def measured(spacing):
        shape = tuple(math.ceil(n / d) for n, d in zip((360, 280, 255), spacing))
        phantom = make_phantom(1, shape, spacing, axcodes="RAS")
        return measure(phantom.image, phantom.label, phantom.affine)

    fine = measured((5.0, 5.0, 5.0))
    for spacing in ((9.0, 9.0, 9.0), (6.0, 6.0, 17.0)):
        coarse = measured(spacing)
        uncertainty = math.hypot(coarse["volume_uncertainty_ml"], fine["volume_uncertainty_ml"])
        assert abs(coarse["volume_ml"] - fine["volume_ml"]) < uncertainty
        assert fine["volume_uncertainty_ml"] < coarse["volume_uncertainty_ml"] < 0.25 * coarse["volume_ml"]


@pytest.mark.parametrize(
    "at, side", [((0, 0, 45), "superior"), ((0, 0, -45), "inferior"), ((45, 0, 0), "right"), ((0, -45, 0), "posterior")]
)
@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SAR", "ILP"])
def test_a_ball_cut_by_the_grid_is_partial_and_says_on_which_side(at, side, axcodes):
    hu, mask, affine = ball(at=at)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(axcodes))
    affine = affine @ nib.orientations.inv_ornt_aff(turn, mask.shape)
    hu, mask = (nib.orientations.apply_orientation(volume, turn) for volume in (hu, mask))
    measured = measure(hu, mask, affine, height_cm=170, weight_kg=70)
    assert (measured["partial"], measured["cut_sides"]) == (True, side)
    # the plane 60 mm from the grid's middle cuts a disc of radius sqrt(40^2 - 15^2) mm
    assert measured["cut_area_cm2"] == pytest.approx(math.pi * (4**2 - 1.5**2), rel=0.06)
    assert measured["volume_of_urata_percent"] is None and measured["remnant_normal_percent"] is None


def test_padding_within_the_grid_cuts_too():
    hu, mask, affine = ball()
    hu[:, :, 36:], mask[:, :, 36:] = -2000, 0
    assert measure(hu, mask, affine)["cut_sides"] == "superior"
    assert not measure(np.maximum(hu, -1000), mask, affine)["partial"]  # lung and gas are in view


def test_a_tip_below_a_square_centimetre_is_not_partial():
    assert not measure(*ball(at=(0, 0, 19.2)))["partial"]  # the grid ends at 60 mm
    assert measure(*ball(at=(0, 0, 23)))["partial"]


def test_hu_statistics_are_those_of_the_voxels_well_inside():
    hu, mask, affine = ball()
    rng = np.random.default_rng(0)
    hu += rng.normal(0, 15, hu.shape).astype(np.float32)
    hu[(mask > 0) & ~eroded(mask > 0, np.array([2.0, 2.0, 2.0]), 5.0)] = 500  # a rim that must not count
    measured = measure(hu, mask, affine)
    core = hu[eroded(mask > 0, np.array([2.0, 2.0, 2.0]), 5.0)].astype(np.float64)
    assert measured["hu_margin_mm"] == 5
    assert measured["hu_mean"] == pytest.approx(core.mean()) and measured["hu_sd"] == pytest.approx(core.std())
    assert measured["hu_median"] == pytest.approx(np.median(core))
    for percent in (5, 25, 75, 95):
        assert measured[f"hu_p{percent:02d}"] == pytest.approx(np.percentile(core, percent))


def test_erosion_is_in_millimetres_and_equal_in_slabs():
    solid = ball(30, (2.0, 2.0, 2.0), (40, 40, 40))[1] > 0
    kept = eroded(solid, np.array([2.0, 2.0, 2.0]), 6.0)
    assert kept.sum() * 0.008 == pytest.approx(4 / 3 * math.pi * 2.4**3, rel=0.05)
    long = np.zeros((64, 64, 1100), bool)  # more than one slab
    long[5:60, 5:60, 10:1090] = True
    thinner = np.zeros_like(long)
    thinner[8:57, 8:57, 11:1089] = True
    assert np.array_equal(eroded(long, np.array([1.0, 1.0, 3.0]), 3.0), thinner)
    assert eroded(np.ones((9, 9, 9), bool), np.ones(3), 3.0).all()


def test_a_small_mask_is_measured_with_a_smaller_margin():
    small = measure(*ball(10, (1.0, 1.0, 1.0), (30, 30, 30)))
    assert (small["hu_margin_mm"], small["hu_mean"]) == (2.5, 60)
    tiny = measure(*ball(3, (1.0, 1.0, 1.0), (30, 30, 30)))
    assert (tiny["hu_margin_mm"], tiny["hu_mean"]) == (0, 60)


def test_fine_grids_are_sampled_without_changing_the_noise():
    hu, mask, affine = ball(20, (0.4, 0.4, 0.4), (120, 120, 120))
    hu += np.random.default_rng(0).normal(0, 20, hu.shape).astype(np.float32)
    measured = measure(hu, mask, affine)
    assert measured["hu_sd"] == pytest.approx(20, rel=0.03) and measured["hu_mean"] == pytest.approx(60, abs=0.5)


def test_a_window_that_saturates_the_liver_is_noticed():
    hu, mask, affine = ball()
    hu += np.where(mask, np.random.default_rng(0).normal(80, 20, hu.shape), 0).astype(np.float32)
    assert measure(hu, mask, affine)["hu_saturated_percent"] < 0.01
    clipped = measure(np.clip(hu, -40, 160), mask, affine)
    assert clipped["hu_saturated_percent"] == pytest.approx(15.9, abs=1)  # 20 HU = one SD above the mean of 140


def test_integer_scans_and_booleans_are_measured_alike():
    hu, mask, affine = ball()
    assert measure(hu.astype(np.int16), mask > 0, affine) == measure(hu, mask, affine)


def test_an_empty_mask_has_no_volume_and_the_same_keys():
    hu, mask, affine = ball()
    empty = measure(hu, np.zeros_like(mask), affine, height_cm=170, weight_kg=70)
    assert empty.keys() == measure(hu, mask, affine).keys()
    assert empty["volume_ml"] == 0 and empty["hu_mean"] is None and empty["extent_left_right_mm"] is None
    assert empty["partial"] is False and empty["volume_of_urata_percent"] is None


def test_everything_is_flat_and_json_ready():
    for mask in (ball()[1], np.zeros((60, 60, 60), np.uint8)):
        measured = measure(ball()[0], mask, ball()[2], native=True, bsa_m2=1.8)
        assert json.loads(json.dumps(measured, allow_nan=False)) == measured
        assert not any(isinstance(value, (list, dict)) for value in measured.values())


def test_steatosis_is_hinted_at_in_native_scans_alone():
    hu, mask, affine = ball()
    fatty = hu - np.float32(25)  # 35 HU
    assert measure(fatty, mask, affine, native=True)["steatosis_hint"] is True
    assert measure(hu, mask, affine, native=True)["steatosis_hint"] is False
    for native in (False, None):
        assert measure(fatty, mask, affine, native=native)["steatosis_hint"] is None


def test_only_a_bright_liver_is_said_to_be_enhanced():
    hu, mask, affine = ball()
    assert measure(hu, mask, affine)["contrast_guess"] is None
    assert measure(hu + np.float32(40), mask, affine)["contrast_guess"] == "enhanced"


def test_steatosis_begins_below_40_hu_and_enhancement_at_85_hu():
    hu, mask, affine = ball()
    hu[mask > 0] = 39  # whole values: the median is the value
    assert measure(hu, mask, affine, native=True)["steatosis_hint"] is True
    hu[mask > 0] = 40
    assert measure(hu, mask, affine, native=True)["steatosis_hint"] is False
    hu[mask > 0] = 84
    assert measure(hu, mask, affine)["contrast_guess"] is None
    hu[mask > 0] = 85
    assert measure(hu, mask, affine)["contrast_guess"] == "enhanced"


def test_standard_volumes_by_hand():
    """170 cm, 70 kg: sqrt(170 * 70 / 3600) = 1.8181 m2; 706.2 * 1.8181 + 2.4 and 1267.28 * 1.8181 - 794.41."""
    assert body_surface_m2(170, 70) == pytest.approx(1.8181, abs=1e-4)
    assert standard_volumes_ml(1.8181) == pytest.approx({"urata": 1286.3, "vauthey": 1509.6}, abs=0.1)
    hu, mask, affine = ball(66, (4.0, 4.0, 4.0), (44, 44, 44))
    measured = measure(hu, mask, affine, height_cm=170, weight_kg=70)
    assert measured["standard_urata_ml"] == pytest.approx(1286.3, abs=0.2)
    assert measured["standard_vauthey_ml"] == pytest.approx(1509.6, abs=0.2)
    assert measured["volume_of_vauthey_percent"] == pytest.approx(100 * measured["volume_ml"] / 1509.6, rel=1e-3)
    for name, ml in (("normal", 377.4), ("after_chemotherapy", 452.9), ("cirrhosis", 603.8)):
        assert measured[f"remnant_{name}_ml"] == pytest.approx(ml, abs=0.1)
        assert measured[f"remnant_{name}_percent"] == pytest.approx(100 * ml / measured["volume_ml"], rel=1e-3)
    assert measure(hu, mask, affine, bsa_m2=1.8181)["standard_urata_ml"] == pytest.approx(1286.3, abs=0.1)
    child = measure(hu, mask, affine, bsa_m2=0.5)  # Vauthey's line is for adults: it would be below 0
    assert child["standard_vauthey_ml"] is None and child["standard_urata_ml"] == pytest.approx(355.5)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"height_cm": 170}, "both height and weight"),
        ({"height_cm": 1.70, "weight_kg": 7}, "height 1.7 cm and weight 7 kg are implausible"),
        ({"height_cm": -170, "weight_kg": 70}, "height -170 cm and weight 70 kg are implausible"),
        ({"bsa_m2": 18.0}, "18 m2 is implausible"),
    ],
)
def test_implausible_bodies_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        measure(*ball(), **arguments)


def test_grids_that_differ_are_refused():
    hu, mask, affine = ball()
    with pytest.raises(ValueError, match="must be on one grid"):
        measure(hu, mask[1:], affine)


def test_an_uneven_margin_does_not_leave_the_mask():
    mask = ball(20, (2.0, 2.0, 6.0), (30, 30, 10))[1] > 0
    kept = eroded(mask, np.array([2.0, 2.0, 6.0]), 5.0)
    assert kept.any() and not (kept & ~mask).any()
    assert not (kept & binary_dilation(~mask, np.ones((3, 3, 1)))).any()  # 2 mm from a voxel outside
