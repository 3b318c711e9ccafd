"""The preview: one picture of a mask on its CT."""

import os

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from ..files import atomic
from .planes import AXIAL, CORONAL, SAGITTAL, WINDOW, View

# distinct for colour-blind readers; dark edges set them off from a bright organ
COLOURS = {"mask": ("yellow", "#ffd60a"), "truth": ("blue", "#35c6ff")}
QUICK = {"compress_level": 3}  # as small as at zlib's default 6, in half the time


def write_preview(path: str | os.PathLike, seen: View, title: str) -> None:
    """Draws three axial slices, a coronal and a sagittal one with the mask's contour, in radiological orientation.

    The axial slices divide the mask (or, without liver, the body) into quarters; the others go through its middle. The
    same input gives the same bytes.

    Args:
        path: the PNG.
        seen: the CT with the mask and, for a second contour, its truth.
        title: above the picture.
    """
    found = [(part.start, part.stop - 1) for part in seen.found]
    levels = np.linspace(*found[AXIAL], 5).round().astype(int)[1:4].tolist()
    axial = [(f"axial, {name}", AXIAL, level) for name, level in zip(("upper", "middle", "lower"), levels, strict=True)]
    across = [(name, axis, sum(found[axis]) // 2) for name, axis in (("coronal", CORONAL), ("sagittal", SAGITTAL))]
    wide, gap, head = 14.0, 0.1, 0.3  # inches: the picture, between its parts, above each row
    heights = []
    for row in (axial, across):
        shapes = [seen.size(axis) for _, axis, _ in row]
        heights.append(min(6.0, (wide - gap * (len(row) + 1)) / sum(width / height for width, height in shapes)))
    high = sum(heights) + 3 * head + gap
    # Figure, not pyplot: the caller's matplotlib backend is not changed
    figure = Figure(figsize=(wide, high), dpi=110, facecolor="black")
    top = high - head
    for row, height in zip((axial, across), heights, strict=True):
        top -= head + height
        widths = [height * seen.size(axis)[0] / seen.size(axis)[1] for _, axis, _ in row]
        left = (wide - sum(widths) - gap * (len(row) - 1)) / 2
        for (name, axis, index), width in zip(row, widths, strict=True):
            axes = figure.add_axes((left / wide, top / high, width / wide, height / high))
            _draw_plane(axes, seen, axis, index)
            axes.set_title(f"{name}, {seen.position(axis, index)}", color="white", fontsize=9, pad=4)
            left += width + gap
    low, high_hu = WINDOW
    legend = "; ".join(
        [f"{colour}: {name}" for name, (colour, _) in list(COLOURS.items())[: len(seen.masks)]]
        + [f"window width {high_hu - low:g}, level {(low + high_hu) / 2:g} HU", "for research use only"]
    )
    figure.suptitle(f"{title}   ({legend})", color="white", fontsize=10, y=1 - gap / high, va="top", parse_math=False)
    with atomic(path) as file:
        figure.savefig(file, format="png", facecolor="black", metadata={"Software": None}, pil_kwargs=QUICK)


def _draw_plane(axes: Axes, seen: View, axis: int, index: int) -> None:
    width, height = seen.size(axis)
    axes.imshow(seen.grey(axis, index), cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0), aspect="auto")
    for inside, (_, colour) in list(zip(seen.inside(axis, index), COLOURS.values(), strict=False))[::-1]:
        if inside.any():  # the first mask's contour is drawn last
            inside = np.pad(inside, 1)  # closes contours at the picture's edge
            down, across = ((np.arange(n) - 0.5) / (n - 2) for n in inside.shape)
            lines = axes.contour(across * width, down * height, inside, levels=[0.5], colors=colour, linewidths=1.2)
            lines.set_path_effects([withStroke(linewidth=2.4, foreground="#000000a0")])
    for letter, x, side in zip("AP" if axis == SAGITTAL else "RL", (0.01, 0.99), ("left", "right"), strict=True):
        axes.text(x, 0.5, letter, ha=side, color="white", fontsize=9, va="center", transform=axes.transAxes)
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
