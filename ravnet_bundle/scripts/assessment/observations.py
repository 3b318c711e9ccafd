"""Observations about a mask's quality, without its truth."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.ndimage import affine_transform, binary_erosion, median_filter, uniform_filter

from ..geometry import FAINT, Box, axial_axis, bounding_box, components, expected_dice, spacing_of

Predict = Callable[[np.ndarray, Sequence[int]], np.ndarray]

FOUND = 0.5  # probability from which a voxel is liver
SOFT_TISSUE = 0.05  # of the network's input, 0..1; darker is fat or air
JUMP_MM = 8.0  # a slice's area is compared with those this far on both sides
SECOND_LOOK = (0.85, 3.3, -2.7)  # the second pass sees slices scaled by this factor and shifted by these pixels
SECOND_SLICES = 9
SECOND_MARGIN = 24  # pixels around the mask in these slices
BESIDE = 3  # slices beside the mask that the second pass may use as neighbours

OBSERVED = (
    *("volume_ml", "cut_sides", "hu_median", "hu_sd", "hu_saturated_percent"),  # of the measures
    *("pixel_spacing_mm", "slice_spacing_mm", "liver_right_of_middle_percent", "liver_front_of_middle_percent"),
    *("expected_dice", "uncalibrated_expected_dice", "border_width_mm", "changed_by_3d_percent", "parts_apart_percent"),
    *("largest_part_apart_ml", "area_step_percent", "noise_percent_of_window", "repeat_dice", "repeat_slices"),
)


def observe(
    measures: Mapping[str, Any],
    affine: np.ndarray,
    image: np.ndarray,
    answer: np.ndarray,
    delivered: np.ndarray,
    network_affine: np.ndarray,
    predict: Predict | None = None,
    temperature: float = 1.0,
) -> dict[str, Any]:
    """All values for the verdict, flat and JSON-ready; `None` if one cannot be observed.

    The mask is that of `delivered`, which the user gets.

    - from the measures: volume, HU, saturation, whether and where the view cuts the liver;
    - `pixel_spacing_mm`, `slice_spacing_mm`: the CT's coarsest spacing in axial slices, and between them;
    - `liver_right_of_middle_percent`, `liver_front_of_middle_percent`: distance of the liver's centre to the right and
      to the front of the body's, in slices with liver, in percent of the body's half width and half depth (two SD of
      the coordinates of soft tissue);
    - `expected_dice`: 2 sum(p m) / (sum(p) + sum(m)) of the network's calibrated probabilities p and the mask m. It
      falls with uncertainty, and if the mask differs from the network's. `uncalibrated_expected_dice`: not calibrated;
    - `border_width_mm`: the integral of 4 p (1 - p) over the volume, divided by the area of the mask's sides;
    - `changed_by_3d_percent`: voxels that the three-dimensional steps added or removed, without the parts apart, in
      percent of the mask's volume;
    - `parts_apart_percent`: separate components of the network's answer that were left out, in percent of the mask's
      volume; `largest_part_apart_ml`: the largest one;
    - `area_step_percent`: largest deviation of a slice's area from the median around it, in percent of the largest;
    - `noise_percent_of_window`: robust SD of the difference from a mean over 3 x 3 pixels, inside the mask;
    - `repeat_dice`: Dice of the mask and a second pass over `repeat_slices` scaled and shifted slices.

    Args:
        measures: of `measures.measure`.
        affine: of the CT, (4, 4).
        image: the network's input, (X', Y', Z') in 0..1, axes towards R, A, S.
        answer: the network's probabilities without white bowel, on the same grid.
        delivered: the same after the three-dimensional steps.
        network_affine: of that grid.
        predict: the network's probabilities for n slices of such an image, (X', Y', Z') and n indices -> (X', Y', n),
            both float32; without it there is no second pass.
        temperature: divisor of the logits that calibrates them (Guo et al., ICML 2017).
    """
    result: dict[str, Any] = dict.fromkeys(OBSERVED) | {name: measures[name] for name in OBSERVED[:5]}
    spacing, axial = spacing_of(affine), axial_axis(affine)
    result |= {"pixel_spacing_mm": float(np.delete(spacing, axial).max()), "slice_spacing_mm": float(spacing[axial])}
    mask = delivered >= FOUND
    box = bounding_box((answer >= FAINT) | mask)
    if box is None or not mask.any():
        return result
    mask, p = mask[box], answer[box].astype(np.float32)
    mm, kept = spacing_of(network_affine), int(np.count_nonzero(mask))
    result["uncalibrated_expected_dice"] = expected_dice(p, mask)
    result["expected_dice"] = expected_dice(calibrated(p, temperature), mask)
    p[p < FAINT] = 0
    uncertain = 4 * float(p.sum(dtype=np.float64) - np.vdot(p.ravel(), p.ravel()))
    result["border_width_mm"] = uncertain * float(np.prod(mm)) / _side_area(mask, mm)
    parts, touching = _parts(p >= FOUND, mask)
    result["changed_by_3d_percent"] = 100 * int(np.count_nonzero(touching != mask)) / kept
    result["parts_apart_percent"] = 100 * sum(parts) / kept
    result["largest_part_apart_ml"] = max(parts, default=0) * float(np.prod(mm)) / 1000
    result["area_step_percent"] = _jump(mask, mm[2])
    result["noise_percent_of_window"] = _noise(image[box], mask)
    result |= _place(image, mask, box)
    if predict is not None:
        result |= _second_look(image, delivered, mask, box, predict)
    return result


def calibrated(probability: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities with their logits divided by a temperature; above 1 they are less sure."""
    if temperature == 1:
        return probability
    p = np.clip(probability.astype(np.float32), 1e-6, 1 - 1e-6)
    odds = (p / (1 - p)) ** np.float32(1 / temperature)
    return odds / (1 + odds)


def _parts(found: np.ndarray, mask: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Sizes, in voxels, of the components that do not touch the mask; and `found` without them."""
    parts, sizes = components(found)
    apart = np.ones(len(sizes), bool)
    apart[np.unique(parts[mask])] = apart[0] = False
    return sizes[apart].tolist(), found & ~apart[parts]


def _side_area(mask: np.ndarray, mm: np.ndarray) -> float:
    """Area of the surface in mm2, without top and bottom: an outline is pi / 4 of its pixels' edges (Crofton)."""
    padded = np.pad(mask, ((1, 1), (1, 1), (0, 0)))
    edges = sum(np.count_nonzero(np.diff(padded, axis=axis)) * mm[1 - axis] for axis in (0, 1))
    return float(np.pi / 4 * edges * mm[2])


def _jump(mask: np.ndarray, slice_mm: float) -> float:
    areas = mask.sum(axis=(0, 1)).astype(np.float64)
    areas = areas[slice(*(np.flatnonzero(areas)[[0, -1]] + (0, 1)))]
    around = median_filter(areas, 2 * max(1, round(JUMP_MM / slice_mm)) + 1, mode="nearest")
    return float(100 * np.abs(areas - around).max() / areas.max())


def _noise(image: np.ndarray, mask: np.ndarray) -> float | None:
    """Robust SD of the difference from the mean of 3 x 3 pixels, inside the mask, in percent of the window."""
    residuals = []
    for z in range(mask.shape[2]):  # slice by slice, to save memory
        x, inner = image[..., z].astype(np.float32), binary_erosion(mask[..., z], np.ones((3, 3)))
        residuals.append((x - uniform_filter(x, 3))[inner])
    values = np.concatenate(residuals)
    return float(100 * 1.4826 * np.median(np.abs(values)) * np.sqrt(9 / 8)) if len(values) else None


def _place(image: np.ndarray, mask: np.ndarray, box: Box) -> dict[str, float | None]:
    body = np.zeros(image.shape[:2], np.int64)
    for z in np.flatnonzero(mask.any(axis=(0, 1))) + box[2].start:
        body += image[..., z] > SOFT_TISSUE
    result: dict[str, float | None] = {}
    for name, axis in (("liver_right_of_middle_percent", 0), ("liver_front_of_middle_percent", 1)):
        weights, at = body.sum(axis=1 - axis), np.arange(body.shape[axis])
        liver = mask.sum(axis=tuple({0, 1, 2} - {axis}))
        if not weights.any():
            return {"liver_right_of_middle_percent": None, "liver_front_of_middle_percent": None}
        middle = np.average(at, weights=weights)
        half = 2 * np.sqrt(np.average((at - middle) ** 2, weights=weights))
        centre = np.average(np.arange(len(liver)), weights=liver) + box[axis].start
        result[name] = float(100 * (centre - middle) / half) if half else None
    return result


def _second_look(
    image: np.ndarray, delivered: np.ndarray, mask: np.ndarray, box: Box, predict: Predict
) -> dict[str, Any]:
    """Dice of the mask and a second pass, in slices spread evenly over the mask's height."""
    zs = np.flatnonzero(mask.any(axis=(0, 1))) + box[2].start
    zs = zs[np.unique(np.linspace(0, len(zs) - 1, min(len(zs), SECOND_SLICES)).round().astype(int))]
    x, y, _ = bounding_box(delivered >= FOUND, SECOND_MARGIN) or box
    image, delivered = image[x, y], delivered[x, y]
    factor, *shift = SECOND_LOOK
    centre = (np.array(image.shape[:2]) - 1) / 2
    there = {"matrix": np.full(2, 1 / factor), "offset": centre - (centre + shift) / factor}
    back = {"matrix": np.full(2, factor), "offset": centre + shift - centre * factor}
    low, high = max(0, zs[0] - BESIDE), min(image.shape[2], zs[-1] + BESIDE + 1)
    smaller = np.zeros((*image.shape[:2], high - low), np.float32)
    for z in range(low, high):
        affine_transform(image[..., z].astype(np.float32), order=1, output=smaller[..., z - low], **there)
    found = np.moveaxis(predict(smaller, zs - low), 2, 0)
    second = [affine_transform(p.astype(np.float32), order=1, **back) >= FOUND for p in found]
    first = [delivered[..., z] >= FOUND for z in zs]
    both = sum(int(np.count_nonzero(a & b)) for a, b in zip(first, second))
    either = sum(int(np.count_nonzero(a)) + int(np.count_nonzero(b)) for a, b in zip(first, second))
    return {"repeat_dice": 2 * both / either, "repeat_slices": len(zs)}
