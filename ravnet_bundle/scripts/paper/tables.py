"""tables.md and tables.csv: measured figures beside the paper's, by protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..evaluation.metrics import LITS, LITS_PROTOCOL, PAPER, table
from ..files import atomic
from .published import LOSS_NETWORK, LOSSES, NOTES, TABLES, Published
from .rivals import NETWORKS, OUR_READING
from .runs import Run

Runs = Mapping[tuple[str, str], Run]
Rows = dict[str, list[tuple[str, tuple[str, str], Published]]]  # label, key of the run, what the paper printed


def write(folder: Path, runs: Runs, losses: Sequence[str], command: str) -> None:
    """Writes both files into `folder`.

    Args:
        runs: by (network, loss); incomplete ones are listed with their status, readings of RA V-Net only if begun.
        losses: names, the main one first.
        command: repeats the comparison.
    """
    runs = {key: run for key, run in runs.items() if key[0] in NETWORKS or run.status() != "not run"}
    main, readings = losses[0], [name for name, _ in runs if name not in NETWORKS]
    rows = {"1": [(loss, (LOSS_NETWORK, loss), LOSSES.get(loss, Published())) for loss in losses]}
    for number, (_, published) in TABLES.items():
        rows[number] = [(name, (name, main), row) for name, row in published.items()]
    rows["4"] += [(name, (name, main), Published()) for name in NETWORKS if name not in TABLES["4"][1]]
    if readings:
        rows["readings"] = [(name, (name, main), Published()) for name in (LOSS_NETWORK, *readings)]
    for name, text in (("tables.md", markdown(rows, runs, losses, command)), ("tables.csv", table(long(rows, runs)))):
        with atomic(folder / name) as file:
            file.write(text.encode())


def measured(run: Run) -> dict[str, dict[str, float | None]]:
    """A complete run's figures by protocol: "slices" and "pooled" (PAPER), "lits" (LITS and dice_global)."""
    summary = run.summary()
    if summary is None:
        return {}
    paper, lits = summary["paper"], summary["lits"]
    return {
        "slices": {name: value["mean"] for name, value in paper["liver_slices"].items()},
        "pooled": paper["pooled"],
        "lits": {name: value["mean"] for name, value in lits["per_case"].items()}
        | {"dice_global": lits["dice_global"]},
    }


def long(rows: Rows, runs: Runs) -> list[dict[str, Any]]:
    """tables.csv: one row per table, network, protocol and metric; the table "lits" has all runs."""
    result = []

    def add(number: str, key: tuple[str, str], protocol: str, figures: Mapping[str, float | None]) -> None:
        run = runs[key]
        record = run.record() or {}
        for metric, value in figures.items():
            result.append(
                {
                    "table": number,
                    "network": key[0],
                    "loss": key[1],
                    "split": run.split,
                    "protocol": protocol,
                    "metric": metric,
                    "value": "" if value is None else value,
                    "status": run.status() or "whole",
                    **{name: record.get(name, "") for name in ("parameters", "slices", "seed", "commit", "hardware")},
                }
            )

    for number, entries in rows.items():
        for _, key, published in entries:
            found = measured(runs[key])
            empty = dict.fromkeys(PAPER)
            add(number, key, "paper", published._asdict())
            add(number, key, "slices", found.get("slices", empty))
            add(number, key, "pooled", found.get("pooled", empty))
    for key, run in runs.items():
        add("lits", key, "lits", measured(run).get("lits", dict.fromkeys((*LITS, "dice_global"))))
    return result


def markdown(rows: Rows, runs: Runs, losses: Sequence[str], command: str) -> str:
    whole = [run for run in runs.values() if run.summary()]
    parts = ["# The paper's comparison, measured", recipe(next(iter(runs.values())), losses[0], whole)]
    parts.append(f"```\n{command}\n```")
    titles = {number: f"Table {number}: {title}" for number, (title, _) in TABLES.items()}
    titles |= {"1": f"Table 1: losses ({LOSS_NETWORK})", "readings": "Where the paper's text leaves room"}
    for number, entries in rows.items():
        head = ["Loss" if number == "1" else "Network"]
        head += [f"{m.upper()} {source}" for m in PAPER for source in ("paper", "slices", "pooled")]
        lines = [[label, *pixel_cells(published, measured(runs[key])), note(key[0], runs[key], number)]
                 for label, key, published in entries]  # fmt: skip
        parts += [f"## {titles[number]}", grid([*head, "Note"], lines)]
    names = [name if loss == losses[0] else f"{name}, {loss} loss" for name, loss in runs]
    scores = (*LITS, "dice_global")
    lines = []
    for name, (key, run) in zip(names, runs.items()):
        found = measured(run).get("lits", {})
        lines.append([name, *(number_text(found.get(score)) for score in scores), note(key[0], run)])
    parts += ["## LiTS's protocol, all networks", LITS_PROTOCOL, grid(["Network", *scores, "Note"], lines)]
    fields = ("parameters", "slices", "seed", "commit", "hardware")
    lines = [[name, *(record_text((run.record() or {}).get(field)) for field in fields)]
             for name, run in zip(names, runs.values())]  # fmt: skip
    parts += ["## Runs", grid(["Network", "Parameters", "Slices seen", "Seed", "Commit", "Hardware"], lines)]
    readings = "".join(f"- {name}, our reading: {text}\n" for name, text in OUR_READING.items())
    return "\n\n".join([*parts, "## Notes", NOTES + readings])


def recipe(run: Run, loss: str, whole: Sequence[Run]) -> str:
    """What all rows have in common, in two sentences."""
    train, scans = run.settings["train"], run.settings["scans"]
    patch = " x ".join(map(str, train["patch_size"]))
    pixel = f"{train['pixel_size']:g} mm pixels" if train["pixel_size"] > 0 else "the scans' own pixels"
    counts = {part: len(names) for part, names in scans.items()}
    return (
        f"Measured on the {counts[run.split]} scans of `{run.split}`; {counts['training']} scans to train, "
        f"{counts['validation']} to choose the weights. Every network at {train['network_def']['scale']:g} of its "
        f"paper's width; {run.slices} slices of {patch} at {pixel} in {run.epochs} epochs, the same for all; "
        f"seed {train['seed']}; {loss} loss unless another is named. {len(whole)} runs are whole."
    )


def note(name: str, run: Run, number: str = "") -> str:
    words = ["our reading"] if name in OUR_READING else []
    if number == "4" and name not in TABLES["4"][1]:
        words.append("not in the paper's table")
    return "; ".join(words + ([run.status()] if run.status() else []))


def pixel_cells(published: Published, found: Mapping[str, Mapping[str, float | None]]) -> list[str]:
    cells = []
    for metric in PAPER:
        printed = getattr(published, metric)
        mark = " †" if metric == "jsc" and impossible(published) else ""
        cells.append("-" if printed is None else f"{printed:g}{mark}")  # with the paper's digits
        cells += [number_text(found.get(protocol, {}).get(metric)) for protocol in ("slices", "pooled")]
    return cells


def impossible(row: Published) -> bool:
    """Whether the printed DSC and JSC cannot belong to the same pixels."""
    if row.dsc is None or row.jsc is None:
        return False
    return row.jsc - 0.005 > (row.dsc + 5e-5) / (2 - row.dsc - 5e-5)


def number_text(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}" if abs(value) < 10 else f"{value:.1f}"


def record_text(value: Any) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] + ["---:" if line != "Note" else "---" for line in head[1:]], *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
