"""Means, intervals and tests of a comparison, against figures that are known."""

import math

import numpy as np
import pytest

from scripts.paper import tables
from scripts.paper.stats import by_scan, difference, estimate, holm


def test_a_scan_counts_once_whatever_the_number_of_its_seeds():
    rows = [{"name": "a", "dice": "0.8"}, {"name": "a", "dice": "0.9"}, {"name": "b", "dice": "0.5"}]
    assert by_scan(rows) == pytest.approx({"a": 0.85, "b": 0.5})
    assert by_scan([{"name": "a", "dice": ""}, {"name": "b", "dice": "nan"}]) == {"a": 0.0, "b": 0.0}


def test_the_interval_is_that_of_the_means_normal_distribution():
    values = np.random.default_rng(1).normal(0.9, 0.05, 400)
    mean, low, high = estimate(list(values))
    assert mean == pytest.approx(values.mean())
    half = 1.96 * values.std() / 20
    assert (mean - low, high - mean) == (pytest.approx(half, rel=0.1), pytest.approx(half, rel=0.1))
    assert math.isnan(estimate([0.5]).low)


def test_only_scans_of_both_are_compared_in_pairs():
    ours = {name: value + 0.02 for name, value in zip("abcdef", (0.1, 0.5, 0.9, 0.3, 0.7, 0.2))}
    theirs = {name: value - 0.02 for name, value in ours.items() if name != "a"} | {"z": 0.0}
    theirs["b"] -= 0.001  # no ties
    found = difference(ours, theirs)
    assert found.scans == 5 and found.mean == pytest.approx(0.0202)
    assert found.p == pytest.approx(2 / 2**5)  # all five of one sign: the least p of Wilcoxon's exact test
    assert found.low > 0
    assert difference(ours, {"z": 1.0}) is None
    assert difference(ours, ours).p == 1.0


def test_holm_multiplies_the_least_p_most_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_variant_is_compared_with_its_own_network_and_with_ra_v_net():
    dice = {"U-Net": (0.8, 0.9), "U-Net, longer": (0.85, 0.9), "RA V-Net": (0.9, 0.96)}
    cases = [
        {"network": network, "fold": "0", "seed": "0", "name": name, "dice": str(value)}
        for network, values in dice.items()
        for name, value in zip("ab", values)
    ]
    line = tables.changes(["U-Net, longer"], cases, {"U-Net, longer": {"of": "U-Net"}}).splitlines()[-1]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:4] == ["U-Net, longer", "2", ".875", "U-Net"]
    assert cells[4].startswith("+.025 ") and cells[6].startswith("+.055 ")
