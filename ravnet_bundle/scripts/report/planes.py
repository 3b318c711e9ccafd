"""Any CT as a radiologist looks at it: which planes, which part of them, and how large a pixel is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from ..geometry import bounding_box, largest_component, spacing_of

WINDOW = (-160, 240)  # HU, black and white: width 400, level 40, the abdomen's usual one
MARGIN = 40.0  # mm, shown beyond the mask
AXIAL, CORONAL, SAGITTAL = 2, 1, 0  # the axis that a plane is across


def _grey(hu: np.ndarray) -> np.ndarray:
    low, high = WINDOW
    return (np.clip((hu - float(low)) / (high - low), 0, 1) * 255).astype(np.uint8)


GREYS = _grey(np.arange(WINDOW[0], WINDOW[1] + 1))  # of whole HU, as nearly all are: a look-up is ten times as fast


class View(NamedTuple):
    """A CT and its masks with axes that point to the patient's left, back and feet; nothing is copied.

    A plane's rows and columns are then its picture's: right on the left, front (sagittal: on the left) and head on top.

    Attributes:
        hu: (L, P, I), HU.
        masks: each (L, P, I), uint8.
        affine: (4, 4), index of such a voxel -> RAS mm.
        spacing: (3,), mm.
        found: per axis, the indices from the first mask's first slice to its last; without any, those of the body.
        near: the same and `MARGIN` on either side, as far as there are slices.
        box: what is shown of a plane: the body and the masks; from head to feet no more than is near.
    """

    hu: np.ndarray
    masks: Sequence[np.ndarray]
    affine: np.ndarray
    spacing: np.ndarray
    found: tuple[slice, ...]
    near: tuple[slice, ...]
    box: tuple[slice, ...]

    def grey(self, axis: int, index: int) -> np.ndarray:
        """The plane across `axis` at `index`, cut to the box: uint8, (rows, columns), in `WINDOW`."""
        low, high = WINDOW
        hu = self.hu[self._cut(axis, index)].T
        return GREYS[np.clip(hu, low, high) - low] if hu.dtype == np.int16 else _grey(hu)

    def inside(self, axis: int, index: int) -> list[np.ndarray]:
        """Each mask on that plane: bool, (rows, columns)."""
        return [mask[self._cut(axis, index)].T > 0 for mask in self.masks]

    def size(self, axis: int) -> tuple[float, float]:
        """Width and height of the planes across `axis`, mm."""
        width, height = (
            (box.stop - box.start) * float(mm)
            for other, (box, mm) in enumerate(zip(self.box, self.spacing, strict=True))
            if other != axis
        )
        return width, height

    def position(self, axis: int, index: int) -> str:
        """Where that plane crosses the middle of the volume, in the scanner's coordinates, such as `S 12.5 mm`."""
        centre = (np.array(self.hu.shape) - 1) / 2
        centre[axis] = index
        mm = float((self.affine @ [*centre, 1])[axis])
        return f"{('LR', 'PA', 'IS')[axis][mm >= 0]} {abs(mm):.1f} mm"

    def _cut(self, axis: int, index: int) -> tuple[slice | int, ...]:
        return (*self.box[:axis], index, *self.box[axis + 1 :])

    def tilt(self) -> float:
        """The largest angle between the planes and the patient's own, degrees."""
        return float(np.degrees(np.arccos(np.clip(np.abs(np.diag(self.affine)[:3]) / self.spacing, 0, 1)).max()))


def view(hu: np.ndarray, masks: Sequence[np.ndarray], affine: np.ndarray) -> View:
    """Turns arrays (X, Y, Z) in any storage order with their affine (4, 4), index -> RAS mm, into a `View`."""
    turn = ornt_transform(io_orientation(affine), axcodes2ornt("LPI"))
    affine = affine @ inv_ornt_aff(turn, hu.shape)
    hu, *masks = (apply_orientation(array, turn) for array in (hu, *masks))
    body = _body(hu)
    boxes = [box for box in map(bounding_box, masks) if box]
    found = boxes[0] if boxes else body
    spacing = spacing_of(affine)
    more = [round(MARGIN / mm) for mm in spacing]
    near = tuple(
        slice(max(0, part.start - m), min(n, part.stop + m)) for part, m, n in zip(found, more, hu.shape, strict=True)
    )
    for box in boxes:
        body = tuple(slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(body, box, strict=True))
    return View(hu, masks, affine, spacing, found, near, (body[0], body[1], near[AXIAL]))


def _body(hu: np.ndarray) -> tuple[slice, ...]:
    """The box of the largest thing denser than fat, on no more than 128 voxels a side."""
    steps = [-(-n // 128) for n in hu.shape]
    few = hu[tuple(slice(None, None, step) for step in steps)]
    # clipped CTs have no air: there the body is what is above the lowest value
    largest = bounding_box(largest_component(few > max(-300.0, float(few.min()) + 1), corners=False))
    if largest is None:
        return tuple(slice(0, n) for n in hu.shape)
    return tuple(
        slice(max(0, (part.start - 1) * step), min(n, (part.stop + 1) * step))
        for part, step, n in zip(largest, steps, hu.shape, strict=True)
    )
