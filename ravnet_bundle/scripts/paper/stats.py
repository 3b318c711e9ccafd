"""Means of scans with their intervals, and paired differences of two networks on the same scans."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import bootstrap, wilcoxon

Scans = Mapping[str, float]  # a value per scan


class Estimate(NamedTuple):
    """A mean with its 95 % interval (percentile bootstrap over scans)."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """The mean of paired differences with its interval, the p of Wilcoxon's signed-rank test, and the pairs' number."""

    mean: float
    low: float
    high: float
    p: float
    scans: int


def by_scan(cases: Iterable[Mapping[str, str]], metric: str = "dice") -> dict[str, float]:
    """The metric of each scan, the mean over its seeds; an undefined one (an empty mask) counts as 0."""
    values = defaultdict(list)
    for row in cases:
        values[row["name"]].append(float(row[metric] or 0))
    return {name: float(np.nan_to_num(found).mean()) for name, found in values.items()}


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of two or more values; of fewer the interval is nan."""
    if len(values) < 2 or np.ptp(values) == 0:
        return Estimate(float(np.mean(values)), np.nan, np.nan)
    found = bootstrap((values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(0))
    return Estimate(float(np.mean(values)), *map(float, found.confidence_interval))


def difference(ours: Scans, theirs: Scans) -> Difference | None:
    """`ours` minus `theirs` on the scans of both; `None` without any."""
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return None
    deltas = [ours[name] - theirs[name] for name in common]
    p = float(wilcoxon(deltas).pvalue) if np.any(deltas) else 1.0
    return Difference(*estimate(deltas), p, len(common))


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm 1979): each times the number of those not smaller, in order."""
    order, result, least = np.argsort(ps), [0.0] * len(ps), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(ps) - rank) * ps[i]))
        result[i] = least
    return result
