"""The paper's figures with our results: windowing (2), liver (7), contours (8, 9, 12), curves (10, 11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from scipy import ndimage
from skimage.measure import marching_cubes

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend, as there may be no screen)
from matplotlib.colors import LightSource  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.ticker import LogLocator, NullFormatter  # noqa: E402
from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # noqa: E402

from ..evaluation.metrics import table  # noqa: E402
from ..files import atomic  # noqa: E402
from ..geometry import bounding_box, largest_component  # noqa: E402
from .cases import Scan, Slice, read_scan, read_slice  # noqa: E402
from .published import LOSS_NETWORK, PANELS  # noqa: E402
from .rivals import NETWORKS  # noqa: E402

TRUTH, FOUND, TUMOUR = "#40ff80", "#ff4040", "#ffd000"
COLUMNS = 6  # panels in a row
PANEL = 2.5  # inches

Curves = Mapping[str, Sequence[Mapping[str, Any]]]


def write(
    folder: Path,
    items: Sequence[Mapping[str, str]],
    masks: Mapping[str, Path],
    curves: Curves,
    window: tuple[float, float],
) -> None:
    """Writes figure_2.png and so on, and curves.csv, into `folder`.

    The reference alone selects the slices: the first, middle and last scan by name, at the slice with most liver; in 3D
    the scan with most tumour.

    Args:
        items: "image" and "label" of the evaluated scans.
        masks: network -> folder of its masks, for evaluated networks.
        curves: network -> `read_curves`, for trained networks.
        window: lowest and highest HU.
    """
    items = sorted(items, key=lambda item: item["image"])
    shown = [items[i] for i in sorted({0, len(items) // 2, len(items) - 1})]
    slices = [read_slice(item, masks) for item in shown]
    save(windowing(slices[0], window), folder / "figure_2.png")
    ill = max(map(read_scan, items), key=lambda scan: (scan.label > 1).sum())
    save(liver(ill), folder / "figure_7.png")
    for number, names in PANELS.items():
        save(contours(slices, names, window), folder / f"figure_{number}.png")
    rows = [{"network": name, **row} for name, lines in curves.items() for row in lines]
    curves = {name: lines for name, lines in curves.items() if name in NETWORKS and lines}
    if curves:
        save(losses(curves), folder / "figure_10.png")
        save(dices(curves), folder / "figure_11.png")
    if rows:
        with atomic(folder / "curves.csv") as file:
            file.write(table(rows).encode())


def save(figure: Figure, path: Path) -> None:
    with atomic(path) as file:
        figure.savefig(file, dpi=110, format="png", facecolor=figure.get_facecolor())
    plt.close(figure)


def show(axis: plt.Axes, image: np.ndarray, spacing: Sequence[float], window: tuple[float, float], title: str):
    """Draws an axial slice `(X, Y)`, axes R and A, in radiological orientation."""
    axis.set_title(title, fontsize=9)
    axis.axis("off")
    drawn = axis.imshow(
        image.T, cmap="gray", vmin=window[0], vmax=window[1], origin="lower", aspect=spacing[1] / spacing[0]
    )
    axis.set_xlim(len(image) - 0.5, -0.5)
    return drawn


def windowing(shown: Slice, window: tuple[float, float]) -> Figure:
    """Figure 2: a slice with all HU, with the window, and its label."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
    full = float(shown.hu.min()), float(shown.hu.max())
    for axis, limits, name in zip(axes, (full, window), ("HU as stored", "(a) windowed")):
        title = f"{name}: {limits[0]:.0f} to {limits[1]:.0f} HU"
        figure.colorbar(show(axis, shown.hu, shown.spacing, limits, title), ax=axis, shrink=0.8)
    show(axes[2], (shown.label > 0).astype(float), shown.spacing, (0, 1), "(b) label: liver")
    figure.suptitle(f"{shown.name}, slice {shown.number} from below; R is on the left", fontsize=10)
    return figure


def liver(scan: Scan) -> Figure:
    """Figure 7: the reference's liver in 3D (marching cubes), transparent, with its tumours."""
    step = 2.5  # mm: as fine as the figure shows
    figure = plt.figure(figsize=(9, 4.4), layout="constrained")
    parts = [(scan.label > 0, FOUND, 0.2, "liver"), (scan.label > 1, TUMOUR, 1.0, "tumour")]
    parts = [part for part in parts if part[0].any()]
    box = np.argwhere(scan.label > 0).min(0), np.argwhere(scan.label > 0).max(0) + 1
    size = [(high - low) * s for low, high, s in zip(*box, scan.spacing)]
    for column, (azimuth, name) in enumerate(((90, "from the front"), (180, "from the patient's left")), start=1):
        axis = figure.add_subplot(1, 2, column, projection="3d")
        light = LightSource(azdeg=90 - azimuth - 25, altdeg=40)  # clockwise from +y; light from the viewer
        for mask, colour, alpha, _ in parts:
            cut = mask[tuple(map(slice, *box))].astype(np.float32)
            smooth = ndimage.zoom(cut, [s / step for s in scan.spacing], order=1, grid_mode=True, mode="nearest")
            if smooth.max() <= 0.5:  # smaller than a voxel of this size
                continue
            points, faces, _, _ = marching_cubes(np.pad(smooth, 1), 0.5, gradient_direction="ascent")
            axis.add_collection3d(
                Poly3DCollection(
                    (points - 1)[faces] * step, facecolors=colour, alpha=alpha, shade=True, lightsource=light
                )
            )
        axis.set(xlim=(0, size[0]), ylim=(0, size[1]), zlim=(0, size[2]), title=name)
        axis.set_box_aspect(size, zoom=1.3)
        axis.view_init(elev=5, azim=azimuth)
        axis.set_axis_off()
    figure.legend(
        handles=[Line2D([], [], color=c, lw=6, label=name) for _, c, _, name in parts],
        loc="outside lower center",
        ncols=2,
    )
    volume = (scan.label > 0).sum() * np.prod(scan.spacing) / 1000
    figure.suptitle(f"{scan.name}: reference, {volume:.0f} ml of liver", fontsize=10)
    return figure


def contours(slices: Sequence[Slice], names: Sequence[str], window: tuple[float, float]) -> Figure:
    """Figures 8, 9, 12: one slice per scan, a panel per network with its contour and the reference's."""
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
            mask = shown.masks[name][box] if name in shown.masks else np.zeros_like(truth)
            score = f"{dice(shown.masks[name], shown.label > 0):.3f}" if name in shown.masks else "not run"
            show(axis, hu, shown.spacing, window, f"{name.replace(' without', chr(10) + 'without')}: {score}")
            for drawn, colour in ((truth, TRUTH), (mask, FOUND)):
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


def line(name: str) -> dict[str, Any]:
    """A network's colour and dashes, equal in all figures; RA V-Net is thick and black."""
    if name == LOSS_NETWORK:
        return {"color": "black", "lw": 2.2, "zorder": 5}
    number = list(NETWORKS).index(name)
    return {"color": plt.get_cmap("tab10")(number % 10), "ls": ("-", "--")[number // 10], "lw": 1.2}


def plot(axis: plt.Axes, curves: Curves, tag: str, label: str, **style: Any) -> None:
    for name, rows in curves.items():
        points = [(row["slices"], row[tag]) for row in rows if row[tag] is not None]
        axis.plot(*zip(*points), label=name, **line(name), **style)
    axis.set(xlabel="slices seen", ylabel=label)
    axis.grid(alpha=0.3)


def losses(curves: Curves) -> Figure:
    """Figure 10: the mean training loss of each epoch."""
    figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
    plot(axis, curves, "train_loss", "training loss, mean of an epoch")
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5, 7)))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())
    figure.legend(*axis.get_legend_handles_labels(), loc="outside right center", fontsize=9)
    return figure


def dices(curves: Curves) -> Figure:
    """Figure 11, with Dice instead of accuracy, which the background alone makes high."""
    figure, axes = plt.subplots(1, 2, figsize=(13, 5), layout="constrained")
    plot(axes[0], curves, "train_dice", "Dice of the training's slices, mean of an epoch")
    plot(axes[1], curves, "val_dice", "Dice of the validation scans (moving average)", marker="o", ms=3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    return figure
