"""The verdict in the benchmarks is the product's."""

import json
import runpy
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from scripts.assessment import Limits
from scripts.inference.diffusion import GAVE_UP
from scripts.inference.pipeline import Segmentation
from scripts.inference.provenance import BUNDLE
from scripts.phantom import make_phantom, save_phantom

BENCHMARKS = BUNDLE.parent / "benchmarks"


def benchmark(name: str, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return SimpleNamespace(**runpy.run_path(str(BENCHMARKS / f"{name}.py")))


def test_where_a_step_gave_up_the_verdict_of_a_case_says_so(monkeypatch):
    stress = benchmark("stress", monkeypatch)
    phantom = make_phantom(3, (108, 88, 32), (3.4, 3.4, 8.0), axcodes="RAS")
    liver, hu = phantom.label > 0, phantom.image.astype(np.float32)
    seen = np.clip((hu + 40) / 200, 0, 1).astype(np.float16)
    answer = liver.astype(np.float32)
    product = object.__new__(stress.Product)
    product.limits = Limits("", {}, 1.0, {})
    rows = []
    for note in ("", GAVE_UP):
        found = Segmentation(liver.astype(np.uint8), seen, answer, answer, phantom.affine, note)
        product.segment = lambda case, found=found: found
        product.pipeline = SimpleNamespace(predict=lambda volume, at: (volume[..., at] > 2).astype(np.float32))
        rows.append(product.row(stress.Case("phantom", "", hu, liver, phantom.affine)))
    assert [GAVE_UP in row.verdict.reasons for row in rows] == [False, True]
    assert rows[1].verdict.level != "ok" and rows[1].doubts == (GAVE_UP,)


def test_weights_too_weak_for_limits_are_told_in_one_line(monkeypatch):
    verdict = benchmark("verdict", monkeypatch)
    empty = np.zeros((4, 4, 4), np.float32)
    found = Segmentation(empty.astype(np.uint8), empty, empty, empty, np.eye(4))
    case = SimpleNamespace(liver=np.ones((4, 4, 4), bool))
    with pytest.raises(SystemExit, match="no validation scan"):
        verdict.temperature(SimpleNamespace(segment=lambda case: found), [case])
    with pytest.raises(SystemExit, match="Dice 0.9"):
        verdict.derive([SimpleNamespace(part="validation", dice=0.5, observed={})])


def test_every_stage_of_a_cold_run_is_timed(tmp_path, monkeypatch):
    """It times the product's own functions by their names, which may move."""
    save_phantom(make_phantom(3, (108, 88, 32), (3.4, 3.4, 8.0)), tmp_path / "ct.nii.gz")
    command = [sys.executable, BENCHMARKS / "stages.py", str(time.time()), tmp_path / "ct.nii.gz", tmp_path / "out"]
    subprocess.run([*command, tmp_path / "report.json"], check=True, capture_output=True)
    found = {stage for stage, *_ in json.loads((tmp_path / "report.json").read_text())}
    monkeypatch.setattr(sys, "argv", [""])
    assert found == {*benchmark("stages", monkeypatch).STAGES} - {"end"}
