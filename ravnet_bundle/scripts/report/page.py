"""The HTML report: verdict, volume, slices to step through, measures, provenance."""

import base64
import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image
from skimage.measure import find_contours

from ..assessment.judge import MEANINGS
from ..files import atomic
from .planes import AXIAL, CORONAL, SAGITTAL, WINDOW, View
from .wording import rows

SLICES = {AXIAL: 160, CORONAL: 80, SAGITTAL: 80}  # most slices to step through; more are thinned out evenly
PIXELS = 512  # longest side of an embedded slice; larger ones are averaged down
BUDGET = 10_000_000  # bytes of all slices, embedded
DETAILS = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15)  # of slices and pixels, tried until they fit; the last always fits
NAMES = {AXIAL: "axial", CORONAL: "coronal", SAGITTAL: "sagittal"}
# symbol and word besides colour, for colour-blind readers
VERDICTS = {"ok": ("✓", "OK"), "review": ("!", "Review"), "reject": ("✕", "Reject")}


class Slice(NamedTuple):
    """One slice: a JPEG as a data URI, the mask's contours as an SVG path in its pixels, and its position."""

    id: str
    image: str
    pixels: tuple[int, int]  # columns, rows
    contour: str
    area: int  # voxels of the mask
    label: str
    at: float  # mm from the edge of the other planes' pictures


class Plane(NamedTuple):
    """The slices across one axis, all `width` x `height` mm; `start` is the index of the first one shown."""

    name: str
    width: float
    height: float
    slices: list[Slice]
    start: int
    down: str  # the plane that crosses this one in a vertical line
    across: str  # the plane that crosses it in a horizontal line
    letters: str  # on the left and on the right

    def levels(self, count: int) -> list[Slice]:
        """At most `count` slices with liver (or, without liver, of all), evenly spread."""
        shown = [one for one in self.slices if one.contour] or self.slices
        return [shown[int(i)] for i in np.unique(np.linspace(0, len(shown) - 1, count).round())]


def write_report(
    path: str | os.PathLike,
    seen: View,
    *,
    name: str,
    measures: Mapping[str, object],
    verdict: str,
    reasons: Sequence[str],
    notes: Sequence[str],
    about: Mapping[str, str],
) -> None:
    """Writes one self-contained page. It loads nothing, and its content security policy forbids loading.

    The same input gives the same bytes, fewer than 15 million. Large volumes are cropped, thinned and averaged down.

    Args:
        path: the HTML file.
        seen: the CT with the mask.
        name: of the study.
        measures: name -> number, text, truth or a few numbers; None is left out. A name ends in its unit, such as
            `volume_ml`; `volume_uncertainty_ml` is shown behind the volume.
        verdict: "ok", "review" or "reject".
        reasons: of the verdict, sentences.
        notes: remarks about the input.
        about: software and options: name -> text.
    """
    icon, word = VERDICTS[verdict]
    folder = Path(__file__).parent
    css, script = ((folder / file).read_text(encoding="utf-8") for file in ("page.css", "page.js"))
    lines = rows(measures)
    tilt = seen.tilt()
    low, high = WINDOW
    page = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = page.get_template("page.html").render(
        css=Markup(css),
        css_hash=_hash(css),
        script=Markup(script),
        script_hash=_hash(script),
        name=name,
        verdict=verdict,
        icon=icon,
        word=word,
        meaning=MEANINGS[verdict],
        reasons=reasons,
        notes=notes,
        volume=next((row.value for row in lines if row.label == "Volume"), ""),
        partial=bool(measures.get("partial")),
        measures=[row for row in lines if not row.detail],
        details=[row for row in lines if row.detail],
        about=rows(about),
        planes=_planes(seen),
        window=f"width {high - low:g}, level {(low + high) / 2:g} HU",
        voxel=" × ".join(f"{mm:.2f}" for mm in seen.spacing),
        tilt=f"{tilt:.0f}" if tilt > 1 else "",
        empty=not seen.masks[0].any(),
    )
    with atomic(path) as file:
        file.write(text.encode())


def _hash(text: str) -> str:
    """The hash of an inline style or script for the content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _planes(seen: View) -> list[Plane]:
    """The axial, coronal and sagittal slices, as many and as fine as the budget allows."""
    for detail in DETAILS:
        slices: dict[int, list[Slice]] = {axis: [] for axis in NAMES}
        size = 0
        for axis, one in ((a, one) for a in NAMES for one in _slices(seen, a, detail)):
            slices[axis].append(one)
            size += len(one.image) + len(one.contour)
            if size > BUDGET and detail > DETAILS[-1]:
                break
        else:
            break
    return [_plane(seen, axis, slices[axis]) for axis in NAMES]


def _slices(seen: View, axis: int, detail: float) -> Iterator[Slice]:
    found, near, side = seen.found[axis], seen.near[axis], round(PIXELS * detail)
    middle = (found.start + found.stop - 1) // 2  # so that a mask in one slice is not lost
    spread = np.linspace(near.start, near.stop - 1, round(SLICES[axis] * detail)).round().astype(int)
    for index in np.union1d(spread, middle).tolist():
        grey = _fit(seen.grey(axis, index), side)
        (inside,) = seen.inside(axis, index)
        yield Slice(
            id=f"{NAMES[axis]}-{index}",
            image=_jpeg(grey),
            pixels=grey.size,
            contour=_contour(np.asarray(_fit(inside * np.uint8(255), side))),
            area=int(np.count_nonzero(inside)),
            label=f"{index + 1} of {seen.hu.shape[axis]}, {seen.position(axis, index)}",
            at=round((index + 0.5 - seen.box[axis].start) * float(seen.spacing[axis]), 2),
        )


def _plane(seen: View, axis: int, slices: list[Slice]) -> Plane:
    width, height = seen.size(axis)
    column, row = (NAMES[other] for other in range(3) if other != axis)
    areas = [one.area for one in slices]
    return Plane(
        name=NAMES[axis],
        width=round(width, 2),
        height=round(height, 2),
        slices=slices,
        start=areas.index(max(areas)) if any(areas) else len(slices) // 2,
        down=column,
        across=row,
        letters="AP" if axis == SAGITTAL else "RL",
    )


def _fit(array: np.ndarray, side: int) -> Image.Image:
    """An image of (rows, columns), averaged down to at most `side` pixels on either."""
    image = Image.fromarray(array)
    size = min(image.width, side), min(image.height, side)
    return image if size == image.size else image.resize(size, Image.Resampling.BOX)


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _contour(inside: np.ndarray) -> str:
    """The outlines of (rows, columns) at half of 255, as an SVG path in pixels."""
    if not inside.any():
        return ""
    path = []
    for line in find_contours(np.pad(inside, 1), 127.5):
        points = line[:-1, ::-1] - 0.5  # pixel centres are at 0.5; the padding shifts by 1
        step = points - np.roll(points, 1, axis=0)
        corners = points[(step != np.roll(step, -1, axis=0)).any(axis=1)]
        path.append("M" + " ".join([f"{x:.4g},{y:.4g}" for x, y in corners.tolist()]) + "Z")
    return "".join(path)
