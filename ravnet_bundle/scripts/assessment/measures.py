"""Measures of a liver: volume, HU, extents, and its volume in relation to the body's size."""

import math
from itertools import pairwise
from typing import Any

import nibabel as nib
import numpy as np

from ..geometry import Box, bounding_box, eroded, spacing_of

PADDING = -1024.0  # HU at or below it are no measurement: outside the field of view
CUT_CM2 = 1.0  # a smaller face at the border of the view hides less than a millilitre
MARGIN_MM = 5.0  # HU are taken this far inside, without partial volume, breathing and errors of the border
LEAST_VOXELS = 1000  # with fewer voxels inside, the margin is halved
PERCENTILES = (5, 25, 75, 95)
ENHANCED_HU = 85.0  # native livers: 55 +- 10 HU; three SD above is contrast agent, except with iron or amiodarone
STEATOSIS_HU = 40.0  # native, below: moderate or severe steatosis is likely (Boyce et al., AJR 2010;194:623)
SIDES = {"L": "left", "R": "right", "P": "posterior", "A": "anterior", "I": "inferior", "S": "superior"}
OPPOSITE = dict(zip("LRPAIS", "RLAPSI"))
EXTENTS = ("left_right", "posterior_anterior", "inferior_superior")
# The least part of the standard volume that a resection should leave (review: PMC6422720).
REMNANTS = {"normal": 25, "after_chemotherapy": 30, "cirrhosis": 40}


def measure(
    hu: np.ndarray,
    mask: np.ndarray,
    affine: np.ndarray,
    *,
    native: bool | None = None,
    height_cm: float | None = None,
    weight_kg: float | None = None,
    bsa_m2: float | None = None,
) -> dict[str, Any]:
    """All measures, flat and JSON-ready; the same keys for every study, `None` if unknown.

    - `volume_uncertainty_ml`: one standard deviation, only from the grid's resolution (see `_volume`).
    - `partial`: whether the field of view cuts the liver, with `cut_sides` and `cut_area_cm2`. The volume is then what
      is in view, and percentages of it are left out.
    - `extent_*_mm`: of the box around the mask, along the body's axes.
    - `hu_*`: of the voxels `hu_margin_mm` inside the mask. `hu_saturated_percent` of them have the highest or lowest
      value of the scan: if it was clipped to a window, mean, SD and percentiles are biased.
    - `contrast_guess`: "enhanced" if the liver is brighter than native livers; a darker one may be native, arterial or
      fatty.
    - `steatosis_hint`: whether the median is below 40 HU; only for scans known to be native.
    - `standard_*_ml`, from the body surface area: Urata et al. (Hepatology 1995;21:1317), 706.2 BSA + 2.4, and Vauthey
      et al. (Liver Transpl 2002;8:233), -794.41 + 1267.28 BSA. `remnant_*_ml` is the least liver that a resection
      should leave (25 % of Vauthey's volume, 30 % after chemotherapy, 40 % in cirrhosis). `remnant_*_percent` is its
      part of the measured volume, which includes tumours.

    Args:
        hu: (X, Y, Z), HU before any window; any real type, never copied as a whole.
        mask: (X, Y, Z), liver > 0; only a boolean one is not copied.
        affine: (4, 4), voxels to RAS millimetres; may be oblique.
        native: whether the scan has no contrast agent, if known.
        height_cm, weight_kg: of the patient; both, or neither.
        bsa_m2: body surface area; by default from height and weight (Mosteller, N Engl J Med 1987;317:1098).

    Raises:
        ValueError: different shapes; a height without a weight; an implausible body surface area.
    """
    if hu.shape != mask.shape:
        raise ValueError(f"the CT has shape {hu.shape} and the mask {mask.shape}: they must be on one grid.")
    surface = body_surface_m2(height_cm, weight_kg, bsa_m2)
    spacing = spacing_of(affine)
    box = bounding_box(mask, margin=1) or (slice(0, 1),) * 3
    inside = mask[box].astype(bool, copy=False)
    volume, uncertainty = _volume(inside, spacing)
    result: dict[str, Any] = {"volume_ml": volume, "volume_uncertainty_ml": uncertainty}
    result |= _cut(inside, hu[box], box, mask.shape, affine)
    result |= _extents(inside, affine)
    result |= _intensities(hu, inside, box, spacing)
    median = result["hu_median"]
    result["contrast_guess"] = "enhanced" if median is not None and median >= ENHANCED_HU else None
    result["steatosis_hint"] = median < STEATOSIS_HU if native and median is not None else None
    return result | _for_the_body(volume if volume and not result["partial"] else None, surface)


def body_surface_m2(
    height_cm: float | None = None, weight_kg: float | None = None, bsa_m2: float | None = None
) -> float | None:
    """Body surface area: as given, or by Mosteller's formula, sqrt(cm kg / 3600); `None` if nothing is known.

    Raises:
        ValueError: a height without a weight, or implausible numbers.
    """
    if (height_cm is None) != (weight_kg is None):
        raise ValueError("give both height and weight, or the body surface area.")
    if height_cm is not None and weight_kg is not None:
        if not (30 <= height_cm <= 250 and 1 <= weight_kg <= 400):
            raise ValueError(f"height {height_cm:g} cm and weight {weight_kg:g} kg are implausible: give cm and kg.")
        if bsa_m2 is None:
            bsa_m2 = math.sqrt(height_cm * weight_kg / 3600)
    if bsa_m2 is not None and not 0.1 <= bsa_m2 <= 4:
        raise ValueError(f"a body surface of {bsa_m2:g} m2 is implausible: give it in m2.")
    return bsa_m2


def standard_volumes_ml(bsa_m2: float) -> dict[str, float]:
    """Standard liver volume by Urata (1995) and Vauthey (2002)."""
    return {"urata": 706.2 * bsa_m2 + 2.4, "vauthey": 1267.28 * bsa_m2 - 794.41}


def _volume(inside: np.ndarray, spacing: np.ndarray) -> tuple[float, float]:
    """Volume and its standard uncertainty in ml, both only from voxels.

    The border lies somewhere between the centres of neighbouring voxels. For a border with normal n this is a layer of
    thickness sum_a |n_a| d_a, with spacing d. Over the whole surface the integral of |n_a| is the area of the mask's
    faces across axis a (Cauchy): F_a v / d_a for F_a faces and voxels of volume v. So the layer's volume is v F, with F
    the faces of all axes. The border is uniformly distributed in its layer, and may be on the same side everywhere: the
    standard deviation is v F / sqrt(12). Independent errors would give far less. Faces at the border of the view do not
    count. Errors of readers and networks are not included.
    """
    voxel = float(np.prod(spacing)) / 1000
    planes = [inside[..., z] for z in range(inside.shape[2])]  # one after the other, to save memory; also below
    faces = sum(int(np.count_nonzero(np.diff(plane, axis=axis))) for plane in planes for axis in (0, 1))
    faces += sum(int(np.count_nonzero(low != high)) for low, high in pairwise(planes))
    return int(np.count_nonzero(inside)) * voxel, faces * voxel / math.sqrt(12)


def _cut(inside: np.ndarray, hu: np.ndarray, box: Box, shape: tuple[int, ...], affine: np.ndarray) -> dict[str, Any]:
    """Where the liver touches the grid's border, or padding inside it (a round field of view, empty slices)."""
    spacing, codes = spacing_of(affine), nib.aff2axcodes(affine)
    starts, ends = [0] * 3, [0] * 3  # faces across each axis
    for axis in range(3):
        liver = np.moveaxis(inside, axis, 0)
        starts[axis] = int(np.count_nonzero(liver[0])) if box[axis].start == 0 else 0
        ends[axis] = int(np.count_nonzero(liver[-1])) if box[axis].stop == shape[axis] else 0
    below = below_unseen = np.zeros(inside.shape[:2], bool)
    for z in range(inside.shape[2]):
        liver, unseen = inside[..., z], hu[..., z] <= PADDING
        for axis, (here, there) in enumerate(((liver, unseen), (liver.T, unseen.T))):
            starts[axis] += int(np.count_nonzero(here[1:] & there[:-1]))
            ends[axis] += int(np.count_nonzero(here[:-1] & there[1:]))
        starts[2] += int(np.count_nonzero(liver & below_unseen))
        ends[2] += int(np.count_nonzero(below & unseen))
        below, below_unseen = liver, unseen
    areas = dict.fromkeys(SIDES.values(), 0.0)
    for axis in range(3):
        face = float(np.prod(spacing)) / spacing[axis] / 100  # cm2
        areas[SIDES[OPPOSITE[codes[axis]]]], areas[SIDES[codes[axis]]] = starts[axis] * face, ends[axis] * face
    sides = [side for side, area in areas.items() if area >= CUT_CM2]
    return {
        "partial": bool(sides),
        "cut_sides": ", ".join(sides) or None,
        "cut_area_cm2": sum(areas[side] for side in sides),
    }


def _extents(inside: np.ndarray, affine: np.ndarray) -> dict[str, float | None]:
    """The sides of the box around all voxels, along the body's axes."""
    ends = []  # of rows: a linear function is greatest there
    for z in range(inside.shape[2]):
        j = np.flatnonzero(inside[..., z].any(axis=0))
        rows = inside[:, j, z]
        for i in (rows.argmax(axis=0), len(rows) - 1 - rows[::-1].argmax(axis=0)):
            ends.append(np.stack([i, j, np.full_like(j, z)], axis=1))
    points = np.concatenate(ends)
    if not len(points):
        return {f"extent_{name}_mm": None for name in EXTENTS}
    world = points @ np.asarray(affine)[:3, :3].T
    return dict(
        zip(
            (f"extent_{name}_mm" for name in EXTENTS),
            (np.ptp(world, axis=0) + np.abs(np.asarray(affine)[:3, :3]).sum(axis=1)).tolist(),
        )
    )


def _intensities(hu: np.ndarray, inside: np.ndarray, box: Box, spacing: np.ndarray) -> dict[str, Any]:
    """HU inside the eroded mask. Voxels finer than a millimetre are sampled, not averaged: SD keeps its meaning."""
    stride = [max(1, int(1 / d)) for d in spacing]
    sampled = tuple(slice(None, None, s) for s in stride)
    part, inside = hu[box][sampled], inside[sampled]
    names = ["hu_mean", "hu_median", "hu_sd", *(f"hu_p{p:02d}" for p in PERCENTILES), "hu_saturated_percent"]
    if not inside.any():
        return dict.fromkeys([*names, "hu_margin_mm"])
    for margin in (MARGIN_MM, MARGIN_MM / 2, 0.0):
        core = eroded(inside, spacing * stride, margin) if margin else inside
        if np.count_nonzero(core) >= LEAST_VOXELS:
            break
    values = part[core].astype(np.float32)
    lowest, highest = float(hu.min()), float(hu.max())
    statistics = [values.mean(dtype=np.float64), np.median(values), values.std(dtype=np.float64)]
    statistics += [*np.percentile(values, PERCENTILES), 100 * np.mean((values <= lowest) | (values >= highest))]
    return dict(zip(names, map(float, statistics))) | {"hu_margin_mm": margin}


def _for_the_body(volume: float | None, surface: float | None) -> dict[str, float | None]:
    """Standard volumes, the measured volume in percent of them, and the least remnants."""
    standard = standard_volumes_ml(surface) if surface is not None else {"urata": None, "vauthey": None}
    result: dict[str, float | None] = {"bsa_m2": surface}
    for name, ml in standard.items():
        ml = ml if ml is None or ml > 0 else None  # Vauthey's formula is for adults; below 0.63 m2 it is negative
        result[f"standard_{name}_ml"] = ml
        result[f"volume_of_{name}_percent"] = 100 * volume / ml if volume and ml else None
    for name, percent in REMNANTS.items():
        least = result["standard_vauthey_ml"] and result["standard_vauthey_ml"] * percent / 100
        result[f"remnant_{name}_ml"] = least
        result[f"remnant_{name}_percent"] = 100 * least / volume if volume and least else None
    return result
