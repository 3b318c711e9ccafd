"""Figures of a comparison: scans by network, Dice against time, validation while training, contours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend, as there may be no screen)
from matplotlib.figure import Figure  # noqa: E402

from ..files import atomic  # noqa: E402
from ..geometry import bounding_box, largest_component  # noqa: E402
from .cases import Slice, read_slice  # noqa: E402
from .published import OURS  # noqa: E402
from .rivals import NETWORKS  # noqa: E402
from .stats import by_scan  # noqa: E402

TRUTH, FOUND = "#40ff80", "#ff4040"
COLUMNS = 6  # panels in a row
PANEL = 2.5  # inches

Rows = Sequence[Mapping[str, str]]


def write(
    folder: Path,
    runs: Rows,
    cases: Rows,
    items: Sequence[Mapping[str, str]],
    masks: Mapping[str, Path],
    window: tuple[float, float],
) -> None:
    """Writes scans.png, time.png and training.png, and contours.png if there are masks, into `folder`.

    Args:
        runs: of runs.csv.
        cases: of cases.csv.
        items: "image" and "label" of the scans for the contours: the first, middle and last by name.
        masks: network -> folder of its masks of these scans.
        window: lowest and highest HU.
    """
    if runs:
        scores = {name: by_scan(r for r in cases if r["network"] == name) for name in {r["network"] for r in runs}}
        save(dots(scores), folder / "scans.png")
        save(pareto(scores, runs), folder / "time.png")
        save(curves(runs), folder / "training.png")
    if masks:
        items = sorted(items, key=lambda item: item["image"])
        shown = [items[i] for i in sorted({0, len(items) // 2, len(items) - 1})]
        save(contours([read_slice(item, masks) for item in shown], window), folder / "contours.png")


def save(figure: Figure, path: Path) -> None:
    with atomic(path) as file:
        figure.savefig(file, dpi=110, format="png", facecolor=figure.get_facecolor())
    plt.close(figure)


def style(name: str) -> dict[str, object]:
    """A network's colour and dashes, equal in all figures; RA V-Net is thick and black, a variant is grey."""
    if name == OURS:
        return {"color": "black", "lw": 2.2, "zorder": 5}
    if name not in NETWORKS:
        return {"color": "grey", "lw": 0.8, "ls": ":"}
    place = list(NETWORKS).index(name)
    return {"color": plt.get_cmap("tab10")(place % 10), "ls": ("-", "--")[place // 10], "lw": 1.2}


def dots(scores: Mapping[str, Mapping[str, float]]) -> Figure:
    """Each scan's Dice as a dot, a row per network, best first; a line at the mean."""
    names = sorted(scores, key=lambda name: np.mean(list(scores[name].values())))
    figure, axis = plt.subplots(figsize=(9, 2 + 0.32 * len(names)), layout="constrained")
    for row, name in enumerate(names):
        values = list(scores[name].values())
        axis.plot(values, row + np.linspace(-0.2, 0.2, len(values)), ".", color=style(name)["color"], alpha=0.7)
        axis.plot([np.mean(values)] * 2, [row - 0.35, row + 0.35], color="black", lw=1.5)
    axis.set_yticks(range(len(names)), [f"{name} ({len(scores[name])})" for name in names])
    axis.set(xlabel="Dice of a scan; the line is the mean; in brackets: scans", xlim=(None, 1))
    axis.grid(axis="x", alpha=0.3)
    return figure


def pareto(scores: Mapping[str, Mapping[str, float]], runs: Rows) -> Figure:
    """Mean Dice against the time of a forward pass; hollow where it is the mean of fewer scans than others have."""
    figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
    most = max(map(len, scores.values()))
    for name in sorted(scores):
        time = min(float(row["forward_ms"]) for row in runs if row["network"] == name)
        dice = np.mean(list(scores[name].values()))
        axis.plot(
            time, dice, "o", color=style(name)["color"], fillstyle="full" if len(scores[name]) == most else "none"
        )
        axis.annotate(f" {name}", (time, dice), fontsize=8, va="center")
    axis.set(
        xlabel="forward pass, ms a slice (hardware: runs.csv)", ylabel="Dice, mean of the scans; hollow: fewer scans"
    )
    axis.margins(x=0.15)
    axis.grid(alpha=0.3)
    return figure


def curves(runs: Rows) -> Figure:
    """Validation Dice by slices seen, the mean over folds and seeds."""
    figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
    for name in dict.fromkeys(row["network"] for row in runs):
        rows = [row for row in runs if row["network"] == name]
        mean = np.mean([[float(value) for value in row["validation"].split()] for row in rows], axis=0)
        slices = int(rows[0]["slices"]) * np.arange(1, len(mean) + 1) / len(mean)
        label = name if name in NETWORKS else "variants"
        axis.plot(slices, mean, label=label, marker="o", ms=3, **style(name))
    axis.set(xlabel="slices seen", ylabel="Dice, validation (moving average of the weights)")
    axis.grid(alpha=0.3)
    lines = {line.get_label(): line for line in axis.get_lines()}  # one for all variants, which look alike
    figure.legend(lines.values(), lines.keys(), loc="outside right center", fontsize=8)
    return figure


def show(axis: plt.Axes, image: np.ndarray, spacing: Sequence[float], window: tuple[float, float], title: str) -> None:
    """Draws an axial slice `(X, Y)`, axes R and A, in radiological orientation."""
    axis.set_title(title, fontsize=9)
    axis.imshow(image.T, cmap="gray", vmin=window[0], vmax=window[1], origin="lower", aspect=spacing[1] / spacing[0])
    axis.set_xlim(len(image) - 0.5, -0.5)


def contours(slices: Sequence[Slice], window: tuple[float, float]) -> Figure:
    """As Figures 8, 9 and 12: a slice per scan, a panel per network with its contour and the reference's."""
    names = list(slices[0].masks)
    lines = -(-len(names) // COLUMNS)
    columns = -(-len(names) // lines)
    boxes = [body(shown.hu) for shown in slices]
    sizes = [[(side.stop - side.start) * mm for side, mm in zip(box, s.spacing)] for box, s in zip(boxes, slices)]
    heights = [PANEL * y / x + 0.28 for x, y in sizes for _ in range(lines)]
    figure, axes = plt.subplots(
        len(heights),
        columns,
        figsize=(PANEL * columns, sum(heights) + 0.6),
        height_ratios=heights,
        layout="constrained",
        squeeze=False,
    )
    for axis in axes.flat:
        axis.axis("off")
    for i, (shown, box) in enumerate(zip(slices, boxes)):
        hu, truth = shown.hu[box], shown.label[box] > 0
        for j, name in enumerate(names):
            axis = axes[i * lines + j // columns, j % columns]
            score = dice(shown.masks[name], shown.label > 0)
            show(axis, hu, shown.spacing, window, f"{name.replace(' without', chr(10) + 'without')}: {score:.3f}")
            for drawn, colour in ((truth, TRUTH), (shown.masks[name][box], FOUND)):
                if drawn.any():
                    axis.contour(drawn.T, levels=[0.5], colors=colour, linewidths=0.9)
    where = ", ".join(f"{shown.name} slice {shown.number}" for shown in slices)
    figure.suptitle(f"green: reference, red: network, with the slice's DSC; R is on the left\n{where}", fontsize=9)
    return figure


def dice(mask: np.ndarray, truth: np.ndarray) -> float:
    return 2 * (mask & truth).sum() / (mask.sum() + truth.sum())


def body(hu: np.ndarray) -> tuple[slice, ...]:
    """The box around the body: the largest component of a slice that is not air."""
    return bounding_box(largest_component(hu > -30, corners=False)) or np.s_[:, :]
