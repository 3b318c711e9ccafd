"""Both protocols' arithmetic on masks whose values were worked out by hand, and the files that an evaluation leaves."""

import csv
import json
import math

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.engines import IterationEvents
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

from scripts.evaluation import metrics
from scripts.evaluation.metrics import CaseTables, evaluate_case, lits_metrics, paper_counts, paper_row, surface_dice

SPACING = (1.5, 2.0, 3.0)


def box(shape, *ranges):
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(slice(*r) for r in ranges)] = True
    return mask


def cube(shift=0):
    """4 x 4 x 4 voxels, moved by `shift` voxels along x."""
    return box((16, 12, 10), (3 + shift, 7 + shift), (4, 8), (3, 7))


def blobs(seed, shape=(75, 24, 20)):
    """Random blobs over more than two of `surface_dice`'s slabs, some of which touch the border."""
    noise = torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.avg_pool3d(noise, 5, 1, 2, count_include_pad=False)[0, 0] > 0.52


def scan(mask, codes="RAS", spacing=(1.0, 1.0, 2.0), name="case"):
    """A mask (X, Y, Z), given in the axes R, A, S, as a MetaTensor (1, X, Y, Z) stored in other axes."""
    image = nib.Nifti1Image(mask.numpy().astype(np.uint8), np.diag([*spacing, 1.0]))
    turned = image.as_reoriented(nib.orientations.axcodes2ornt(codes))
    meta = {"filename_or_obj": f"/data/{name}.nii.gz"}
    return MetaTensor(torch.from_numpy(turned.get_fdata())[None], affine=torch.from_numpy(turned.affine), meta=meta)


def run(tables, *items):
    """A minimal evaluator over (pred, label) pairs."""
    engine = Engine(lambda engine, item: engine.fire_event(IterationEvents.MODEL_COMPLETED))
    engine.register_events(*IterationEvents)

    @engine.on(IterationEvents.MODEL_COMPLETED)
    def set_output(engine):
        pred, label = engine.state.batch
        engine.state.output = [{"pred": pred, "label": label}]

    tables.attach(engine)
    engine.run(list(items))
    return engine.state.metrics


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_lits_metrics_of_a_cube_moved_by_one_voxel():
    found = lits_metrics(cube(1), cube(), SPACING)
    # 48 of 64 voxels in common. Of each surface's 56 voxels the 16 of the outer face and the 4 in the middle of the
    # inner face are one voxel (1.5 mm along x) from the other surface, the rest lies on it.
    expected = {"dice": 48 / 64, "voe": 32 / 80, "rvd": 0, "assd_mm": 1.5 * 20 / 56, "hd95_mm": 1.5, "nsd_3mm": 1}
    assert found == pytest.approx(expected | {"volume_ml": 64 * 0.009, "reference_ml": 64 * 0.009}, rel=1e-6)


def test_distances_go_by_each_axis_spacing():
    for axis, size in enumerate(SPACING):
        moved = cube().roll(1, dims=axis)
        assert lits_metrics(moved, cube(), SPACING)["hd95_mm"] == pytest.approx(size)


def test_too_much_liver_has_a_positive_rvd():
    small, large = box((12, 12, 12), (4, 8), (4, 8), (4, 8)), box((12, 12, 12), (4, 10), (4, 8), (4, 8))
    assert lits_metrics(large, small, SPACING)["rvd"] == pytest.approx(0.5)
    assert lits_metrics(small, large, SPACING)["rvd"] == pytest.approx(-1 / 3)


def test_nsd_is_a_share_of_area_in_square_millimetres():
    """A box of 40 x 40 x 40 mm against one that is 20 mm longer, in voxels of 1 x 1 x 4 mm."""
    short, long = (box((70, 50, 14), (5, end), (5, 45), (2, 12)) for end in (45, 65))
    # Far are: of the short box's 6 x 1600 mm2, the part of one end over 3 mm inside; of the long one's 2 x 1600 +
    # 4 x 2400 mm2, the other end, and the sides from 3 mm beyond the short box.
    far = 34 * 34 + 1600 + 17 * 160
    assert surface_dice(long, short, (1.0, 1.0, 4.0), 3.0) == pytest.approx(1 - far / (9600 + 12800), abs=0.01)
    assert surface_dice(long, short, (1.0, 1.0, 4.0), 30.0) == 1
    assert surface_dice(cube(8), cube(), SPACING, 3.0) == 0


def test_surface_metrics_equal_monais_on_the_whole_volume():
    pred, label = blobs(0), blobs(1)
    assert pred[0].any() and label[:, :, -1].any(), "the blobs should touch the border"
    settings = {"include_background": True, "spacing": SPACING}
    masks = (pred[None, None], label[None, None])
    found = lits_metrics(pred, label, SPACING)
    nsd = compute_surface_dice(*masks, class_thresholds=[3.0], use_subvoxels=True, **settings)
    assert found["nsd_3mm"] == pytest.approx(float(nsd), rel=1e-5)
    assert 0.1 < found["nsd_3mm"] < 0.99
    assert found["assd_mm"] == pytest.approx(
        float(compute_average_surface_distance(*masks, symmetric=True, **settings))
    )
    assert found["hd95_mm"] == pytest.approx(float(compute_hausdorff_distance(*masks, percentile=95, **settings)))


@pytest.mark.parametrize("margins", [(1, 1, 1, 1, 1, 1), (0, 40, 3, 0, 7, 9)])
def test_empty_space_around_both_masks_changes_nothing(margins):
    pred, label = blobs(2), blobs(3)
    wide = [torch.nn.functional.pad(mask, margins) for mask in (pred, label)]
    assert lits_metrics(*wide, SPACING) == pytest.approx(lits_metrics(pred, label, SPACING), rel=1e-6)


def three_slices():
    """10 x 10 x 3: all of 40 pixels found; 2 of 4, and 2 false; 6 false ones in a slice without liver."""
    pred, label = torch.zeros(2, 10, 10, 3, dtype=torch.bool)
    pred[:4, :, 0] = label[:4, :, 0] = True
    label[0, :4, 1] = pred[0, 2:6, 1] = True
    pred[5, :6, 2] = True
    return pred, label


def test_counts_of_each_slice():
    expected = [[40, 0, 60, 0], [2, 2, 94, 2], [0, 6, 94, 0]]
    assert paper_counts(*three_slices()).tolist() == expected


def test_pooled_and_mean_over_liver_slices_are_two_things():
    row = paper_row(evaluate_case(*(scan(mask) for mask in three_slices())))
    pooled = {"pooled_acc": 290 / 300, "pooled_pre": 42 / 50, "pooled_dsc": 84 / 94, "pooled_jsc": 42 / 52}
    means = {"acc": (1 + 0.96) / 2, "pre": (1 + 0.5) / 2, "dsc": (1 + 0.5) / 2, "jsc": (1 + 1 / 3) / 2}
    expected = pooled | {f"liver_slices_{name}": value for name, value in means.items()}
    assert [row.pop(name) for name in ("name", "slices", "liver_slices")] == ["case", 3, 2]
    assert row == pytest.approx(expected)


def test_jaccard_follows_from_dice_for_pooled_pixels_only():
    row = paper_row(evaluate_case(*(scan(mask) for mask in three_slices())))
    assert row["pooled_jsc"] == pytest.approx(row["pooled_dsc"] / (2 - row["pooled_dsc"]))
    assert row["liver_slices_jsc"] > row["liver_slices_dsc"] / (2 - row["liver_slices_dsc"]) + 0.05


@pytest.mark.parametrize("codes", ["LPS", "SAR", "IPL", "RSA"])
def test_slices_are_axial_however_the_scan_is_stored(codes):
    plain, turned = (
        evaluate_case(*(scan(mask, c, (1.0, 1.5, 2.0)) for mask in three_slices())) for c in ("RAS", codes)
    )
    assert paper_row(turned) == pytest.approx(paper_row(plain))
    assert turned.lits == pytest.approx(plain.lits)
    assert plain.lits["reference_ml"] == pytest.approx(44 * 0.003)


def test_an_empty_prediction_is_a_miss_without_distances():
    case = evaluate_case(scan(cube() & False), scan(cube()))
    assert {name: case.lits[name] for name in ("dice", "voe", "rvd", "nsd_3mm", "volume_ml")} == {
        "dice": 0, "voe": 1, "rvd": -1, "nsd_3mm": 0, "volume_ml": 0,
    }  # fmt: skip
    assert math.isnan(case.lits["assd_mm"]) and math.isnan(case.lits["hd95_mm"])
    row = paper_row(case)
    assert row["pooled_dsc"] == row["pooled_jsc"] == row["liver_slices_dsc"] == 0
    assert math.isnan(row["pooled_pre"]) and math.isnan(row["liver_slices_pre"])


@pytest.mark.parametrize("pred", [cube(), cube() & False], ids=["false liver", "nothing"])
def test_an_empty_reference_leaves_accuracy_and_volumes_alone(pred):
    case = evaluate_case(scan(pred), scan(cube() & False))
    assert all(math.isnan(case.lits[name]) for name in metrics.LITS)
    assert case.lits["volume_ml"] == pytest.approx(int(pred.sum()) * 0.002)
    row = paper_row(case)
    assert row["pooled_acc"] == pytest.approx(1 - int(pred.sum()) / pred.numel())
    assert row["liver_slices"] == 0
    assert all(math.isnan(row[f"pooled_{name}"]) for name in ("pre", "dsc", "jsc"))
    assert all(math.isnan(row[f"liver_slices_{name}"]) for name in metrics.PAPER)


def test_tables_and_summary_hold_every_case_once(tmp_path):
    nothing = cube() & False
    found = run(
        CaseTables(str(tmp_path / "new" / "folder"), "test"),
        (scan(cube(1), name="b"), scan(cube())),
        (scan(nothing, name="a"), scan(cube())),
        (scan(cube(), name="c"), scan(nothing)),
        (scan(cube(1), name="b"), scan(cube())),  # as a DistributedSampler repeats one
    )
    folder = tmp_path / "new" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == ["lits.csv", "paper.csv", "summary.json"]

    lits = read(folder / "lits.csv")
    assert [row["name"] for row in lits] == ["a", "b", "c"]
    assert list(lits[0])[1:] == [*metrics.LITS, "volume_ml", "reference_ml", "outside_ml"]
    assert [float(row["dice"]) for row in lits] == pytest.approx([0, 0.75, math.nan], nan_ok=True)
    assert lits[0]["assd_mm"] == "nan" and float(lits[1]["hd95_mm"]) == 1
    paper = read(folder / "paper.csv")
    assert [row["name"] for row in paper] == ["a", "b", "c"]
    assert [float(row["pooled_dsc"]) for row in paper] == pytest.approx([0, 0.75, math.nan], nan_ok=True)

    text = (folder / "summary.json").read_text()
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (summary["split"], summary["cases"]) == ("test", 3)
    assert (summary["empty_predictions"], summary["empty_references"]) == (1, 1)
    per_case = summary["lits"]["per_case"]
    assert per_case["dice"] == {"mean": pytest.approx(0.75 / 2), "cases": 2}
    assert per_case["assd_mm"] == {"mean": pytest.approx(20 / 56), "cases": 1}
    # 48 true positives; 16 false ones in b, 64 in c; missed 64 in a, 16 in b
    assert summary["lits"]["dice_global"] == pytest.approx(2 * 48 / (2 * 48 + 80 + 80))
    assert summary["paper"]["pooled"]["pre"] == pytest.approx(48 / 128)
    assert summary["paper"]["liver_slices"]["dsc"] == {"mean": pytest.approx(0.75 / 2), "slices": 8}
    assert summary["paper"]["liver_slices"]["pre"] == {"mean": pytest.approx(0.75), "slices": 4}

    assert found["lits_dice"] == per_case["dice"]["mean"]
    assert found["lits_dice_global"] == found["paper_pooled_dsc"] == summary["lits"]["dice_global"]
    assert found["empty_predictions"] == 1
    assert {name.split("_")[0] for name in found} == {"paper", "lits", "empty"}


def test_means_over_nothing_are_null(tmp_path):
    run(CaseTables(str(tmp_path), "test"), (scan(cube()), scan(cube() & False)))
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["lits"]["per_case"]["dice"] == {"mean": None, "cases": 0}
    assert summary["paper"]["liver_slices"]["jsc"] == {"mean": None, "slices": 0}


def test_a_second_run_starts_afresh(tmp_path):
    tables = CaseTables(str(tmp_path), "test")
    run(tables, (scan(cube(), name="a"), scan(cube())))
    run(tables, (scan(cube(), name="b"), scan(cube())))
    assert [row["name"] for row in read(tmp_path / "lits.csv")] == ["b"]


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_put_their_cases_together_and_the_first_writes(rank, tmp_path, monkeypatch):
    cases = {name: (scan(cube(shift), name=name), scan(cube())) for shift, name in enumerate("abc")}
    other, tables = CaseTables(str(tmp_path / "other"), "test"), CaseTables(str(tmp_path / "all"), "test")
    run(other, cases["c"], cases["a"])  # a is here and there: a DistributedSampler pads
    monkeypatch.setattr(metrics.idist, "get_world_size", lambda: 2)
    monkeypatch.setattr(metrics.idist, "get_rank", lambda: rank)
    monkeypatch.setattr(metrics.idist, "all_gather", lambda mine: [mine, other.cases])
    found = run(tables, cases["a"], cases["b"])
    assert found["lits_dice"] == pytest.approx((1 + 0.75 + 0.5) / 3)
    if rank == 0:
        assert [row["name"] for row in read(tmp_path / "all" / "lits.csv")] == ["a", "b", "c"]
    else:
        assert not (tmp_path / "all").exists()


def test_a_label_of_another_shape_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"label /data/mine.nii.gz, \(16, 12, 9\).*image /data/case.nii.gz, \(16, 12, 10\)"
    ):
        evaluate_case(scan(cube()), scan(cube()[..., :9], name="mine"))


def test_a_label_stored_in_other_axes_is_refused():
    with pytest.raises(ValueError, match="with axes LPS, is not on the grid of image .* with axes RAS"):
        evaluate_case(scan(cube()), scan(cube(), "LPS"))


def test_an_identity_affine_of_a_label_says_nothing_about_its_axes():
    pred, label = scan(cube(), "LPS"), scan(cube(), "LPS")
    label.meta["original_affine"] = np.eye(4)  # in the file; RepairHeaderd gave the label its image's affine
    assert evaluate_case(pred, label).lits["dice"] == 1
