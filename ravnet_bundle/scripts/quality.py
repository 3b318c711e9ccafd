"""Whether a mask can be trusted: what can be observed without a truth, the limits of it, and the reasons in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from scipy.ndimage import affine_transform, binary_erosion, find_objects, label, median_filter, uniform_filter

Predict = Callable[[np.ndarray], np.ndarray]

FOUND = 0.5  # probability from which a voxel is liver
FAINT = 0.05  # probability below which a voxel is left out of all sums: they do not grow with the field of view
SOFT_TISSUE = 0.05  # of the network's input, 0..1: what is darker is fat or air
JUMP_MM = 8.0  # how far to both sides a slice's area is compared
SECOND_LOOK = (0.85, 3.3, -2.7)  # the second pass sees slices smaller by this factor, and moved by so many pixels
SECOND_SLICES = 9

OBSERVED = (
    *("volume_ml", "cut_sides", "hu_median", "hu_sd", "hu_saturated_percent"),  # of the measures
    *("pixel_spacing_mm", "slice_spacing_mm", "right_of_middle_percent", "front_of_middle_percent"),
    *("expected_dice", "border_width_mm", "elsewhere_percent", "elsewhere_largest_ml", "area_jump_percent"),
    *("noise_of_window_percent", "second_look_dice", "second_look_slices"),
)
NO_LIVER_ML = 50.0  # less is no liver, and no tip of one that would be worth a number
HOPELESS = {"expected_dice": 0.8, "second_look_dice": 0.7}  # below: reject

# What anatomy and physics say. Volume: 1504 +- 356 ml in healthy adults, and twice as much in disease. HU: steatosis at
# the one end, the arterial and portal venous phase at the other; SD of thin slices' noise, vessels and tumours. Noise:
# of the training's augmentation, 8 %, with some of the scans' own; LiTS alone would call most thin slices noisy.
PLAUSIBLE: dict[str, tuple[float | None, float | None]] = {
    "volume_ml": (500.0, 3500.0),
    "hu_median": (25.0, 170.0),
    "hu_sd": (None, 60.0),
    "hu_saturated_percent": (None, 25.0),
    "pixel_spacing_mm": (None, 3.5),
    "slice_spacing_mm": (None, 12.0),
    "right_of_middle_percent": (0.0, None),
    "elsewhere_percent": (None, 3.0),
    "noise_of_window_percent": (None, 10.0),
}

# Written by `python benchmarks/verdict.py DATA --write` with the weights of sha256 be0a41373b40...
LIMITS: dict[str, tuple[float | None, float | None]] = {
    "expected_dice": (0.983, None),
    "border_width_mm": (None, 2.24),
    "second_look_dice": (0.966, None),
    "area_jump_percent": (None, 12.7),
    "front_of_middle_percent": (-7.01, None),
}

# name -> what to say below the lower and above the upper limit
REASONS: dict[str, tuple[str, str]] = {
    "volume_ml": (
        "The liver found is small: {value:.0f} ml, usually over {low:.0f} ml; parts may be missing, or it is none.",
        "The liver found is large: {value:.0f} ml, usually under {high:.0f} ml; neighbours may have been taken for it.",
    ),
    "hu_median": (
        "The liver is dark: {value:.0f} HU in the median, expected over {low:.0f} HU; wrong organ, wrong scale, no CT?",
        "The liver is bright: {value:.0f} HU in the median, expected under {high:.0f} HU; wrong organ or wrong scale?",
    ),
    "hu_sd": ("", "HU in the liver spread by {value:.0f} (SD), expected under {high:.0f}: noise, or several tissues."),
    "hu_saturated_percent": (
        "",
        "{value:.0f} % of the liver lie at an end of the stored window: HU statistics are biased.",
    ),
    "pixel_spacing_mm": ("", "Pixels of {value:.1f} mm are coarse; expected under {high:.1f} mm."),
    "slice_spacing_mm": ("", "Slices {value:.1f} mm apart are thick; expected under {high:.0f} mm."),
    "right_of_middle_percent": (
        "The liver found lies left of the body's middle: a mirrored scan, situs inversus or the wrong organ.",
        "",
    ),
    "front_of_middle_percent": (
        "The liver found lies far back in the body: a scan turned front to back, or the wrong organ.",
        "",
    ),
    "expected_dice": (
        "The network is unsure: by its own probabilities a Dice of {value:.3f}, usually over {low:.3f}.",
        "",
    ),
    "border_width_mm": ("", "The liver's border is vague: {value:.1f} mm wide, usually under {high:.1f} mm."),
    "second_look_dice": (
        "A second look at {slices} slices, slightly smaller, agrees poorly: Dice {value:.3f}, usually over {low:.3f}.",
        "",
    ),
    "elsewhere_percent": (
        "",
        "Other parts, {value:.0f} % of the liver's volume, were taken for it and left out, one of {largest:.0f} ml.",
    ),
    "area_jump_percent": (
        "",
        "The liver's area jumps from slice to slice, by {value:.0f} % of the greatest, usually under {high:.0f} %.",
    ),
    "noise_of_window_percent": (
        "",
        "The scan is noisy: {value:.1f} % of the window's width, usually under {high:.1f} %.",
    ),
}


class Verdict(NamedTuple):
    """level: "ok", "review" (look at it before using it) or "reject" (do not use it); reasons: one sentence each."""

    level: str
    reasons: tuple[str, ...]


def observe(
    measures: Mapping[str, Any],
    affine: np.ndarray,
    image: np.ndarray,
    probability: np.ndarray,
    network_affine: np.ndarray,
    predict: Predict | None = None,
) -> dict[str, Any]:
    """All that the verdict goes by, flat and JSON-ready; `None` where it cannot be observed.

    - from the measures: volume, HU, saturation, whether and where the view cuts the liver;
    - `pixel_spacing_mm`, `slice_spacing_mm`: the CT's coarsest spacing within, and its spacing across, axial slices;
    - `right_of_middle_percent`, `front_of_middle_percent`: how far the liver's centre lies right and in front of the
      body's, in the slices with liver, of the body's half width and half depth (two SD of soft tissue's coordinates);
    - `expected_dice`: 2 sum(p m) / (sum(p) + sum(m)) of probabilities p and mask m, the Dice that calibrated
      probabilities expect; it falls with uncertainty anywhere;
    - `border_width_mm`: the volume of uncertainty, the integral of 4 p (1 - p), over the area of the mask's sides;
    - `elsewhere_percent`: of the mask's volume, what was found apart from it; `elsewhere_largest_ml`: the largest part;
    - `area_jump_percent`: of the largest slice's area, how far one at most deviates from the median of those around;
    - `noise_of_window_percent`: of the window, the noise within the mask against a mean over 3 x 3 pixels, robust;
    - `second_look_dice`: between what was found in `second_look_slices` slices and what a second pass finds there, the
      slices scaled and shifted.

    Args:
        measures: of `measures.measure`.
        affine: of the CT, (4, 4).
        image: what the network saw, (X', Y', Z') in 0..1, axes towards R, A, S.
        probability: what it answered, on the same grid, before any component was dropped.
        network_affine: of that grid.
        predict: the network with its sigmoid, (n, X', Y') -> (n, X', Y'), both float32; without it no second pass.
    """
    result: dict[str, Any] = dict.fromkeys(OBSERVED) | {name: measures[name] for name in OBSERVED[:5]}
    spacing = nib.affines.voxel_sizes(affine)
    axial = [code in "SI" for code in nib.aff2axcodes(affine)].index(True)
    result |= {"pixel_spacing_mm": float(np.delete(spacing, axial).max()), "slice_spacing_mm": float(spacing[axial])}
    box = _box(probability)
    if box is None:
        return result
    p = probability[box].astype(np.float32)
    p[p < FAINT] = 0
    mask, parts = _largest(p >= FOUND)
    if not parts:
        return result
    mm = nib.affines.voxel_sizes(network_affine)
    millilitres = float(np.prod(mm)) / 1000
    kept = parts[0]
    total = float(p.sum(dtype=np.float64))
    result["expected_dice"] = 2 * float(p[mask].sum(dtype=np.float64)) / (total + kept)
    uncertain = 4 * (total - float(np.vdot(p.ravel(), p.ravel())))
    result["border_width_mm"] = uncertain * float(np.prod(mm)) / _side_area(mask, mm)
    result["elsewhere_percent"] = 100 * sum(parts[1:]) / kept
    result["elsewhere_largest_ml"] = parts[1] * millilitres if len(parts) > 1 else 0.0
    result["area_jump_percent"] = _jump(mask, mm[2])
    result["noise_of_window_percent"] = _noise(image[box], mask)
    result |= _place(image, mask, box)
    if predict is not None:
        result |= _second_look(image, probability, mask, box, predict)
    return result


def judge(observed: Mapping[str, Any], doubts: Iterable[str] = ()) -> Verdict:
    """What was observed, against its limits; reading's doubts about the CT are reasons for a review."""
    volume, reasons = observed["volume_ml"], list(doubts)
    if volume < NO_LIVER_ML:
        return Verdict("reject", (*reasons, f"No liver was found ({volume:.0f} ml). Is it in the scan?"))
    if observed["cut_sides"]:
        reasons.append(f"The field of view cuts the liver ({observed['cut_sides']}): its volume is partial.")
    for name, (low, high) in {**PLAUSIBLE, **LIMITS}.items():
        value = observed[name]
        if value is None:
            continue
        below, above = low is not None and not value >= low, high is not None and not value <= high  # nan is outside
        if below or above:
            text = REASONS[name][0 if below else 1]
            others = {"slices": observed["second_look_slices"], "largest": observed["elsewhere_largest_ml"]}
            reasons.append(text.format(value=value, low=low, high=high, **others))
    hopeless = any(observed[name] is not None and observed[name] < least for name, least in HOPELESS.items())
    return Verdict("reject" if hopeless else "review" if reasons else "ok", tuple(reasons))


def _box(probability: np.ndarray) -> tuple[slice, ...] | None:
    """Where any voxel is not faint."""
    found = find_objects((probability >= FAINT).astype(np.uint8))
    return found[0] if found else None


def _largest(found: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """The largest component (voxels that touch, corners included), and the voxels of all, the largest first."""
    components, _ = label(found, np.ones((3, 3, 3)))
    sizes = np.bincount(components.ravel())[1:]
    return components == sizes.argmax() + 1 if len(sizes) else found, sorted(sizes.tolist(), reverse=True)


def _side_area(mask: np.ndarray, mm: np.ndarray) -> float:
    """Area of the surface in mm2, without tops and bottoms: an outline is pi / 4 of its pixels' edges (Crofton)."""
    padded = np.pad(mask, ((1, 1), (1, 1), (0, 0)))
    edges = sum(np.count_nonzero(np.diff(padded, axis=axis)) * mm[1 - axis] for axis in (0, 1))
    return float(np.pi / 4 * edges * mm[2])


def _jump(mask: np.ndarray, slice_mm: float) -> float:
    areas = mask.sum(axis=(0, 1)).astype(np.float64)
    areas = areas[slice(*(np.flatnonzero(areas)[[0, -1]] + (0, 1)))]
    around = median_filter(areas, 2 * max(1, round(JUMP_MM / slice_mm)) + 1, mode="nearest")
    return float(100 * np.abs(areas - around).max() / areas.max())


def _noise(image: np.ndarray, mask: np.ndarray) -> float | None:
    """Robust SD of what differs from the mean of 3 x 3 pixels, of pixels well inside, in percent of the window."""
    residuals = []
    for z in range(mask.shape[2]):  # slice by slice: no further volume is needed
        x, inner = image[..., z].astype(np.float32), binary_erosion(mask[..., z], np.ones((3, 3)))
        residuals.append((x - uniform_filter(x, 3))[inner])
    values = np.concatenate(residuals)
    return float(100 * 1.4826 * np.median(np.abs(values)) * np.sqrt(9 / 8)) if len(values) else None


def _place(image: np.ndarray, mask: np.ndarray, box: tuple[slice, ...]) -> dict[str, float | None]:
    body = np.zeros(image.shape[:2], np.int64)
    for z in np.flatnonzero(mask.any(axis=(0, 1))) + box[2].start:
        body += image[..., z] > SOFT_TISSUE
    result: dict[str, float | None] = {}
    for name, axis in (("right_of_middle_percent", 0), ("front_of_middle_percent", 1)):
        weights, at = body.sum(axis=1 - axis), np.arange(body.shape[axis])
        liver = mask.sum(axis=tuple({0, 1, 2} - {axis}))
        if not weights.any():
            return {"right_of_middle_percent": None, "front_of_middle_percent": None}
        middle = np.average(at, weights=weights)
        half = 2 * np.sqrt(np.average((at - middle) ** 2, weights=weights))
        centre = np.average(np.arange(len(liver)), weights=liver) + box[axis].start
        result[name] = float(100 * (centre - middle) / half) if half else None
    return result


def _second_look(
    image: np.ndarray, probability: np.ndarray, mask: np.ndarray, box: tuple[slice, ...], predict: Predict
) -> dict[str, Any]:
    """Dice of all that both passes found in slices spread evenly over the mask's height."""
    zs = np.flatnonzero(mask.any(axis=(0, 1))) + box[2].start
    zs = zs[np.unique(np.linspace(0, len(zs) - 1, min(len(zs), SECOND_SLICES)).round().astype(int))]
    factor, *shift = SECOND_LOOK
    centre = (np.array(image.shape[:2]) - 1) / 2
    there = {"matrix": np.full(2, 1 / factor), "offset": centre - (centre + shift) / factor}
    back = {"matrix": np.full(2, factor), "offset": centre + shift - centre * factor}
    smaller = np.stack([affine_transform(image[..., z].astype(np.float32), order=1, **there) for z in zs])
    second = [affine_transform(p.astype(np.float32), order=1, **back) >= FOUND for p in predict(smaller)]
    first = [probability[..., z] >= FOUND for z in zs]
    both = sum(int(np.count_nonzero(a & b)) for a, b in zip(first, second))
    either = sum(int(np.count_nonzero(a)) + int(np.count_nonzero(b)) for a, b in zip(first, second))
    return {"second_look_dice": 2 * both / either, "second_look_slices": len(zs)}
