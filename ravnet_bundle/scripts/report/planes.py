"""A CT in a radiologist's view: axial, coronal and sagittal planes, cropped, with their pixel size."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from ..geometry import bounding_box, largest_component, spacing_of

WINDOW = (-160, 240)  # HU, black and white: width 400, level 40, the abdomen's usual one
MARGIN = 40.0  # mm shown beyond the mask
AXIAL, CORONAL, SAGITTAL = 2, 1, 0  # the axis across a plane


def _grey(hu: np.ndarray) -> np.ndarray:
    low, high = WINDOW
    return (np.clip((hu - float(low)) / (high - low), 0, 1) * 255).astype(np.uint8)


GREYS = _grey(np.arange(WINDOW[0], WINDOW[1] + 1))  # for whole HU a look-up is ten times as fast


class View(NamedTuple):
    """A CT and its masks with axes towards the patient's left, back and feet; nothing is copied.

    So a plane is its picture: the patient's right is on the left, front (sagittal: on the left) and head on top.

    Attributes:
        hu: (L, P, I), HU.
        masks: each (L, P, I), uint8.
        affine: (4, 4), voxel index -> RAS mm.
        spacing: (3,), mm.
        found: per axis, the range of the first mask; without liver, of the body.
        near: the same with `MARGIN` on both sides, within the volume.
        box: the part that is shown: body and masks; from head to feet the range `near`.
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
        return GREYS.take(np.clip(hu, low, high) - low) if hu.dtype == np.int16 else _grey(hu)

    def inside(self, axis: int, index: int) -> list[np.ndarray]:
        """Each mask in this plane: bool, (rows, columns)."""
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
        """The plane's position at the middle of the volume, in the scanner's coordinates, such as `S 12.5 mm`."""
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
    """Turns HU and masks, (X, Y, Z) in any storage order, with their affine (4, 4), index -> RAS mm, into a `View`."""
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
    """The box of the largest component denser than fat, on at most 128 voxels a side."""
    steps = [-(-n // 128) for n in hu.shape]
    few = hu[tuple(slice(None, None, step) for step in steps)]
    # clipped CTs have no air: there the body is above the lowest value
    largest = bounding_box(largest_component(few > max(-300.0, float(few.min()) + 1), corners=False))
    if largest is None:
        return tuple(slice(0, n) for n in hu.shape)
    return tuple(
        slice(max(0, (part.start - 1) * step), min(n, (part.stop + 1) * step))
        for part, step, n in zip(largest, steps, hu.shape, strict=True)
    )
