"""tables.md: the runs' results beside the paper's figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

from .published import OURS, PUBLISHED
from .rivals import NETWORKS, OUR_READING
from .stats import Difference, Estimate, by_scan, difference, estimate, holm

Rows = Sequence[Mapping[str, str]]


def markdown(
    runs: Rows, cases: Rows, folds: int, variants: Mapping[str, Mapping[str, Any]], failures: Mapping[str, str]
) -> str:
    """All tables.

    Args:
        runs: of runs.csv.
        cases: of cases.csv.
        folds: number of the cross-validation's folds.
        variants: as of `Comparison`: they are compared with the network that they are of.
        failures: network -> one line.
    """
    networks = list(dict.fromkeys(row["network"] for row in runs))
    scores = {name: by_scan(row for row in cases if row["network"] == name) for name in networks}
    done = {name: len({row["fold"] for row in runs if row["network"] == name}) for name in networks}
    whole = [name for name in networks if name in NETWORKS and done[name] == folds]
    part = [name for name in networks if name in NETWORKS and done[name] < folds]
    parts = ["# The paper's comparison, measured"]
    if whole:
        parts += ["## All folds", accuracy(whole, scores, cases)]
    if part:
        parts += ["## Some folds", accuracy(part, scores, cases)]
    if rest := [name for name in networks if name not in NETWORKS]:
        parts += ["## What each choice is worth", changes(rest, cases, variants)]
    if networks:
        parts += ["## Cost and convergence", costs(networks, runs)]
    if failures:
        parts += ["## Failed", *(f"{name}: {text}" for name, text in failures.items())]
    readings = "".join(f"- {name}, our reading: {text}\n" for name, text in OUR_READING.items() if name in networks)
    return "\n\n".join([*parts, readings]).rstrip() + "\n"


def accuracy(names: Sequence[str], scores: Mapping[str, Mapping[str, float]], cases: Rows) -> str:
    """Mean Dice with its interval, best first, and RA V-Net's paired difference to each network."""
    names = sorted(names, key=lambda name: -mean(scores[name].values()))
    against = {n: difference(scores.get(OURS, {}), scores[n]) for n in names if n != OURS}
    corrected = corrections(against)
    lines = []
    for name in names:
        rows = [row for row in cases if row["network"] == name]
        by_slice = np.average(
            [float(row["liver_slices_dsc"] or 0) for row in rows], weights=[int(row["liver_slices"]) for row in rows]
        )
        lines.append(
            [
                name,
                str(len(scores[name])),
                interval(estimate(list(scores[name].values()))),
                number(float(by_slice)),
                " or ".join(f"{one:g}".lstrip("0") for one in PUBLISHED.get(name, ())) or "-",
                *paired(against.get(name), corrected.get(name)),
            ]
        )
    head = ["Network", "Scans", "Dice [95 %]", "DSC, slices", "DSC, paper", f"{OURS} minus it [95 %]", "p"]
    return grid(head, lines)


def changes(names: Sequence[str], cases: Rows, variants: Mapping[str, Mapping[str, Any]]) -> str:
    """Each variant's paired difference to its network and to RA V-Net, on the same folds and seeds."""
    of = {name: variants.get(name, {}).get("of", "-") for name in names}  # a row's variant may be gone
    found, to_its_own, to_ours = {}, {}, {}
    for name in names:
        rows = [row for row in cases if row["network"] == name]
        same = {(row["fold"], row["seed"]) for row in rows}
        runs = [row for row in cases if (row["fold"], row["seed"]) in same]
        found[name] = by_scan(rows)
        to_its_own[name] = difference(found[name], by_scan(row for row in runs if row["network"] == of[name]))
        if of[name] != OURS:
            to_ours[name] = difference(by_scan(row for row in runs if row["network"] == OURS), found[name])
    corrected, corrected_ours = corrections(to_its_own), corrections(to_ours)
    lines = [
        [name, str(len(found[name])), number(mean(found[name].values())), of[name]]
        + paired(to_its_own[name], corrected.get(name))
        + paired(to_ours.get(name), corrected_ours.get(name))
        for name in names
    ]
    head = ["Variant", "Scans", "Dice", "Of", "Minus that network [95 %]", "p", f"{OURS} minus it [95 %]", "p"]
    return grid(head, lines)


def costs(names: Sequence[str], runs: Rows) -> str:
    """Size, time, and how much the validation's Dice still rose in the last interval, the mean over the runs."""
    lines = []
    for name in names:
        rows = [row for row in runs if row["network"] == name]
        curves = [[float(value) for value in row["validation"].split()] for row in rows]
        rises = [curve[-1] - curve[-2] for curve in curves if len(curve) > 1]
        times = [str(round(min(float(row[key]) for row in rows), 1)) for key in ("step_ms", "forward_ms")]
        counts = [f"{int(rows[0][key]):,}" for key in ("parameters", "slices")]
        ends = [number(mean(curve[-1] for curve in curves)), signed(mean(rises)) if rises else "-"]
        lines.append([name, str(len(rows)), *counts, *times, *ends])
    head = ["Network", "Runs", "Parameters", "Slices seen", "Step, ms a slice", "Forward, ms a slice"]
    return grid([*head, "Dice, validation", "Its rise at the end"], lines)


def corrections(against: Mapping[str, Difference | None]) -> dict[str, float]:
    known = {name: one.p for name, one in against.items() if one and not math.isnan(one.p)}
    return dict(zip(known, holm(list(known.values()))))


def paired(one: Difference | None, p: float | None) -> list[str]:
    if one is None or p is None:
        return ["-", "-"]
    span = "" if math.isnan(one.low) else f" [{signed(one.low)}, {signed(one.high)}]"
    return [signed(one.mean) + span, "<.001" if p < 0.001 else f"{p:.3f}".lstrip("0")]


def interval(one: Estimate) -> str:
    span = "" if math.isnan(one.low) else f" [{number(one.low)}, {number(one.high)}]"
    return number(one.mean) + span


def number(value: float) -> str:
    return f"{value:.3f}".lstrip("0") if 0 <= value < 1 else f"{value:.3f}"


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("0.", ".")


def grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] + ["---:"] * (len(head) - 1), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
