"""What a person looks at: `scripts/report`, as files; `test_browser.py` has a browser show them."""

import itertools
import os
import re
import tracemalloc

import numpy as np
import pytest
from browser import Page
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image

from scripts.assessment.observations import OBSERVED
from scripts.phantom import make_phantom
from scripts.report import view, write_preview, write_report

CONTENT = {
    "name": "study 7",
    "measures": {"volume_ml": 1432.12, "volume_uncertainty_ml": 31.4, "hu_mean": 104.23, "partial": False},
    "verdict": "ok",
    "reasons": [],
    "notes": [],
    "about": {},
}


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(seed=2, shape=(96, 72, 40), spacing=(3.6, 3.6, 6.0))


@pytest.fixture(scope="module")
def scan(phantom):
    return {
        "hu": phantom.image.astype(np.float32),
        "mask": (phantom.label > 0).astype(np.uint8),
        "affine": phantom.affine,
    }


def shown(scan):
    return view(scan["hu"], [scan["mask"]], scan["affine"])


def turned(scan, codes):
    turn = ornt_transform(io_orientation(scan["affine"]), axcodes2ornt(codes))
    return {
        **{key: np.ascontiguousarray(apply_orientation(scan[key], turn)) for key in ("hu", "mask")},
        "affine": scan["affine"] @ inv_ornt_aff(turn, scan["hu"].shape),
    }


def test_a_report_holds_all_that_it_shows_and_can_ask_for_nothing(scan, tmp_path):
    write_report(tmp_path / "r.html", shown(scan), **CONTENT)
    page = Page(tmp_path / "r.html")
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "a")
        assert not {"src", "srcset", "action", "poster", "style", "xlink:href"} & set(attributes)
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("href", "#").startswith(("#", "data:image/jpeg;base64,"))
    assert "http:" not in page.raw and "https:" not in page.raw and "url(" not in page.raw and "@import" not in page.raw
    policy = next(t["content"] for t in page.all("meta") if t.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    assert os.listdir(tmp_path) == ["r.html"]


def test_verdict_volume_and_what_it_is_for_come_before_everything_else(scan, tmp_path):
    content = {**CONTENT, "verdict": "review", "reasons": ["The mask has two parts."], "notes": ["A note."]}
    content["measures"] = {
        **CONTENT["measures"],
        "partial": True,
        "steatosis_hint": None,
        "extent_left_right_mm": 211.4,
    }
    content["about"] = {"weights": "9f2c", "run time": "48.1 s"}
    write_report(tmp_path / "r.html", shown(scan), **content)
    text = Page(tmp_path / "r.html").text
    order = ["For research use only", "Review", "The mask has two parts.", "1432 ± 31 ml", "Partial:", "Axial"]
    order += ["HU mean 104", "Width, left to right 211 mm", "A note.", "Weights, SHA-256 9f2c", "Run time 48.1 s"]
    places = [text.find(part) for part in order]
    assert -1 not in places and places == sorted(places)
    assert "Fatty liver" not in text


def test_what_the_verdict_goes_by_is_folded_away_and_explained(scan, tmp_path):
    observed = dict.fromkeys(OBSERVED, 1.0)
    write_report(tmp_path / "r.html", shown(scan), **{**CONTENT, "measures": observed})
    page = Page(tmp_path / "r.html")
    measures, details = page.raw.split("<details", 1)
    assert "Expected Dice" not in measures and "Expected Dice<small>overlap with an expert" in details
    assert "Volume" in measures and "HU median" in measures
    labels = re.findall(r"<dt>([^<]*)", page.raw)
    assert len(labels) == len(OBSERVED) == len(set(labels))


@pytest.mark.parametrize(("verdict", "word"), [("ok", "✓ OK"), ("review", "! Review"), ("reject", "✕ Reject")])
def test_a_verdict_is_told_by_words_and_a_sign(scan, tmp_path, verdict, word):
    write_report(tmp_path / "r.html", shown(scan), **{**CONTENT, "verdict": verdict})
    assert word in Page(tmp_path / "r.html").text


def test_names_are_text_and_never_markup(scan, tmp_path):
    evil = "</title></script><script>alert(1)</script><img src=x onerror=\"alert('1')\">&amp;"
    content = {**CONTENT, "name": evil, "reasons": [evil], "notes": [evil]}
    content |= {"measures": {"volume_ml": 1.0, evil: evil}, "about": {evil: evil}}
    write_report(tmp_path / "r.html", shown(scan), **content)
    page = Page(tmp_path / "r.html")
    assert page.text.count(evil) >= 7
    assert not page.all("img") and len(page.all("script")) == 1


@pytest.mark.parametrize("codes", ["LPS", "RAI", "SAR", "PIL"])
def test_one_steps_through_the_right_slices_whatever_the_storage_order(scan, tmp_path, codes):
    write_report(tmp_path / "r.html", shown(turned(scan, codes)), **CONTENT)
    page, seen = Page(tmp_path / "r.html"), turned(scan, "LPI")
    found = [np.flatnonzero(seen["mask"].any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    for axis, plane in enumerate(("sagittal", "coronal", "axial")):
        slices = list(page.slices(plane))
        indices = [index for index, *_ in slices]
        assert indices[0] <= found[axis][0] and indices[-1] >= found[axis][-1]
        assert all(1 <= b - a <= (1 if plane == "axial" else 2) for a, b in itertools.pairwise(indices))
        start = next(t for t in page.all("input") if t.get("aria-label") == f"{plane} slice")["value"]
        areas = seen["mask"].sum(axis=tuple({0, 1, 2} - {axis}))
        assert areas[indices[int(start)]] == areas[indices].max()
        for index, grey, mask, label in slices[::5]:
            full = np.take(seen["mask"], index, axis).T
            assert mask.sum() == full.sum()
            if mask.any():  # the shown part of the plane is where the contour is
                (row, column), (r, c) = (np.argwhere(part)[0] for part in (full, mask))
                rows, columns = slice(row - r, row - r + mask.shape[0]), slice(column - c, column - c + mask.shape[1])
                assert (full[rows, columns] == mask).all()
                hu = np.take(seen["hu"], index, axis).T[rows, columns]
                assert np.abs(np.clip((hu + 160) / 400 * 255, 0, 255) - grey).mean() < 8  # JPEG
            middle = (np.array(seen["hu"].shape) - 1) / 2
            middle[axis] = index
            mm = (seen["affine"] @ [*middle, 1])[axis]
            letter = ("LR", "PA", "IS")[axis][int(mm >= 0)]
            assert label == f"{index + 1} of {seen['hu'].shape[axis]}, {letter} {abs(mm):.1f} mm"


def test_the_lines_and_sizes_of_the_planes_agree_in_mm(scan, tmp_path):
    write_report(tmp_path / "r.html", shown(scan), **CONTENT)
    page = Page(tmp_path / "r.html")
    boxes = [tuple(map(float, t["viewbox"].split()[2:])) for t in page.all("svg") if "role" in t]
    (x, y), (x2, z), (y2, z2) = boxes
    assert (x, y, z) == (x2, y2, z2)
    assert y / 3.6 == pytest.approx(round(y / 3.6)) and z / 6 == pytest.approx(round(z / 6))
    for plane, extent in zip(("axial", "coronal", "sagittal"), (z, y, x), strict=True):
        at = [float(t["data-at"]) for t in page.all("g") if t["id"].startswith(plane)]
        assert all(0 < a < b < extent for a, b in itertools.pairwise(at))


def test_an_empty_mask_is_shown_as_such(scan, tmp_path):
    empty = {**scan, "mask": np.zeros_like(scan["mask"])}
    write_report(tmp_path / "r.html", shown(empty), **{**CONTENT, "measures": {"volume_ml": 0.0}, "verdict": "reject"})
    page = Page(tmp_path / "r.html")
    assert "Contour of the mask (empty)" in page.text and "0 ml" in page.text
    assert len(list(page.slices("axial"))) == 40
    assert not any(t.get("class") == "contour" for t in page.all("path"))
    write_preview(tmp_path / "p.png", shown(empty), "none")
    assert (tmp_path / "p.png").stat().st_size > 10_000


def test_a_mask_in_one_slice_of_many_can_be_stepped_to(scan, tmp_path):
    hu = np.zeros((40, 40, 900), np.float32)
    mask = np.zeros(hu.shape, np.uint8)
    mask[20, 20, 401] = 1
    write_report(tmp_path / "r.html", view(hu, [mask], np.diag([0.3, 0.3, 0.3, 1])), **CONTENT)
    shown = [index for index, _, inside, _ in Page(tmp_path / "r.html").slices("axial") if inside.any()]
    assert shown == [900 - 1 - 401]


def test_tilted_slices_are_said_to_be_tilted(scan, tmp_path):
    c, s = np.cos(np.radians(12)), np.sin(np.radians(12))
    tilt = np.array([[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]])
    write_report(tmp_path / "r.html", shown({**scan, "affine": tilt @ scan["affine"]}), **CONTENT)
    assert "tilted by up to 12°" in Page(tmp_path / "r.html").text


def test_a_large_noisy_volume_stays_small_and_is_never_copied(tmp_path):
    # one slice again and again: 1024 x 1024 x 160 voxels that need no memory of their own
    plane = np.random.default_rng(0).normal(100, 300, (1024, 1024, 1)).astype(np.float32)
    inside = np.zeros((1024, 1024, 1), np.uint8)
    inside[300:600, 300:600] = 1
    hu, mask = (np.broadcast_to(array, (1024, 1024, 160)) for array in (plane, inside))
    tracemalloc.start()
    write_report(tmp_path / "r.html", view(hu, [mask], np.diag([0.4, 0.4, 0.6, 1])), **CONTENT)
    write_preview(tmp_path / "p.png", view(hu, [mask], np.diag([0.4, 0.4, 0.6, 1])), "large")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < hu.size  # less than a byte a voxel
    assert (tmp_path / "r.html").stat().st_size < 15e6
    assert len(list(Page(tmp_path / "r.html").slices("axial"))) >= 40


def test_what_does_not_fit_the_budget_is_thinned_out_and_averaged_down(tmp_path, monkeypatch):
    monkeypatch.setattr("scripts.report.page.BUDGET", 1_200_000)
    hu = np.zeros((64, 64, 40), np.float32)
    mask = np.random.default_rng(0).integers(0, 2, hu.shape).astype(np.uint8)  # all contour
    write_report(tmp_path / "r.html", view(hu, [mask], np.eye(4)), **CONTENT)
    assert 500_000 < (tmp_path / "r.html").stat().st_size < 1_300_000
    assert 10 < len(list(Page(tmp_path / "r.html").slices("axial"))) < 40


def test_the_same_input_gives_the_same_bytes(scan, tmp_path):
    for name in ("a", "b"):
        write_report(tmp_path / f"{name}.html", shown(scan), **CONTENT)
        write_preview(tmp_path / f"{name}.png", shown(scan), "study 7")
    for kind in ("html", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert not Image.open(tmp_path / "a.png").text


def test_a_preview_is_the_same_in_every_storage_order_and_draws_the_mask(scan, tmp_path):
    pixels = []
    for codes in ("LPS", "RAI", "SAR"):
        write_preview(tmp_path / f"{codes}.png", shown(turned(scan, codes)), "one $ and _")
        pixels.append(np.asarray(Image.open(tmp_path / f"{codes}.png").convert("RGB")).astype(int))
    assert (pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all()
    red, green, blue = np.moveaxis(pixels[0], -1, 0)
    yellow = (red > 180) & (green > 150) & (blue < 90)
    assert 1000 < yellow.sum() < 0.05 * yellow.size
    half = yellow.shape[0] // 2
    left, right = np.split(yellow[:half, : yellow.shape[1] // 3 // 2 * 2], 2, axis=1)
    assert left.sum() > 2 * right.sum()  # the liver is on the patient's right, the picture's left


def test_a_preview_shows_the_truth_too(scan, tmp_path):
    both = view(scan["hu"], [np.zeros_like(scan["mask"]), scan["mask"]], scan["affine"])
    write_preview(tmp_path / "p.png", both, "title")
    red, green, blue = np.moveaxis(np.asarray(Image.open(tmp_path / "p.png").convert("RGB")).astype(int), -1, 0)
    assert ((blue > 200) & (green > 150) & (red < 110)).sum() > 1000
