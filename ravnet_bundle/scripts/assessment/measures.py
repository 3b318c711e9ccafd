"""Numbers of a liver in its CT: volume, HU, extents, and what its volume means for a body of known size."""

from __future__ import annotations

import math
from typing import Any

import nibabel as nib
import numpy as np

from ..geometry import Box, bounding_box, eroded, spacing_of

PADDING = -1024.0  # HU at or below it is no measurement: what scanners and readers put where nothing was seen
CUT_CM2 = 1.0  # a smaller face at the border of the view hides a tip of less than a millilitre
MARGIN_MM = 5.0  # HU are taken this far inside: clear of partial volume, breathing and the network's own border
LEAST_VOXELS = 1000  # fewer inside the margin say little about a liver: the margin is halved
PERCENTILES = (5, 25, 75, 95)
ENHANCED_HU = 85.0  # native livers: 55 +- 10 HU; iron and amiodarone aside, three SD above is contrast agent
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
    """All numbers, flat and JSON-ready; the same keys for every study, `None` where a number is not known.

    - `volume_ml`, and `volume_uncertainty_ml`: one standard deviation by the grid's resolution alone (see `_volume`).
    - `partial`: whether the field of view cuts the liver, with `cut_sides` and `cut_area_cm2`; the volume is then that
      of what is in view, and no percentage is made of it.
    - `extent_*_mm`: of the box around the mask, along the body's axes.
    - `hu_*`: of the voxels `hu_margin_mm` inside the mask. `hu_saturated_percent` of them lie at the highest or lowest
      value of the whole scan: where a scan was stored through a window, mean, SD and percentiles are then biased.
    - `contrast_guess`: "enhanced" where the liver is brighter than native livers are. A darker one may be native,
      arterial or fatty: no guess.
    - `steatosis_hint`: only of scans known to be native: whether the median lies below 40 HU.
    - `standard_*_ml`, with the body's surface: Urata et al. (Hepatology 1995;21:1317), 706.2 BSA + 2.4, and Vauthey et
      al. (Liver Transpl 2002;8:233), -794.41 + 1267.28 BSA. `remnant_*_ml` is the least liver that a resection should
      leave (25 % of Vauthey's volume, 30 % after chemotherapy, 40 % in cirrhosis), `remnant_*_percent` its part of the
      measured volume: tumours are part of that, and a resection's plan is not made here.

    Args:
        hu: (X, Y, Z), HU before any window; any real type, never copied as a whole.
        mask: (X, Y, Z), liver > 0.
        affine: (4, 4), voxels to RAS millimetres; may be oblique.
        native: whether the scan is without contrast agent, if that is known (a DICOM header, the user).
        height_cm, weight_kg: of the patient; both, or neither.
        bsa_m2: the body's surface; without it that of height and weight (Mosteller, N Engl J Med 1987;317:1098).

    Raises:
        ValueError: shapes that differ; a height without a weight; no plausible surface.
    """
    if hu.shape != mask.shape:
        raise ValueError(f"the CT has shape {hu.shape} and the mask {mask.shape}: they must be on one grid.")
    surface = body_surface_m2(height_cm, weight_kg, bsa_m2)
    spacing = spacing_of(affine)
    box = bounding_box(mask, margin=1) or (slice(0, 1),) * 3
    inside = mask[box] > 0
    volume, uncertainty = _volume(inside, spacing)
    result: dict[str, Any] = {"volume_ml": volume, "volume_uncertainty_ml": uncertainty}
    result |= _cut(inside, hu[box] > PADDING, box, mask.shape, affine)
    result |= _extents(inside, box, affine)
    result |= _intensities(hu, inside, box, spacing)
    median = result["hu_median"]
    result["contrast_guess"] = "enhanced" if median is not None and median >= ENHANCED_HU else None
    result["steatosis_hint"] = median < STEATOSIS_HU if native and median is not None else None
    return result | _for_the_body(volume if volume and not result["partial"] else None, surface)


def body_surface_m2(
    height_cm: float | None = None, weight_kg: float | None = None, bsa_m2: float | None = None
) -> float | None:
    """The body's surface: as given, or by Mosteller's formula, sqrt(cm kg / 3600); `None` where nothing is known.

    Raises:
        ValueError: a height without a weight, or numbers that are no patient's.
    """
    if (height_cm is None) != (weight_kg is None):
        raise ValueError("the body's surface needs both height and weight, or give it itself.")
    if height_cm is not None and weight_kg is not None:
        if not (30 <= height_cm <= 250 and 1 <= weight_kg <= 400):
            raise ValueError(f"height {height_cm:g} cm and weight {weight_kg:g} kg are no patient's: give cm and kg.")
        if bsa_m2 is None:
            bsa_m2 = math.sqrt(height_cm * weight_kg / 3600)
    if bsa_m2 is not None and not 0.1 <= bsa_m2 <= 4:
        raise ValueError(f"a body surface of {bsa_m2:g} m2 is no patient's: give it in m2.")
    return bsa_m2


def standard_volumes_ml(bsa_m2: float) -> dict[str, float]:
    """Standard liver volume by Urata (1995) and Vauthey (2002)."""
    return {"urata": 706.2 * bsa_m2 + 2.4, "vauthey": 1267.28 * bsa_m2 - 794.41}


def _volume(inside: np.ndarray, spacing: np.ndarray) -> tuple[float, float]:
    """Volume and its standard uncertainty in ml, both from voxels alone.

    A voxel says of the border that it lies somewhere between two neighbours' centres. Across a border with normal n
    that is a layer of thickness sum_a |n_a| d_a, d the spacing; over the whole surface, the integral of |n_a| is the
    area of the mask's own faces across axis a (Cauchy), F_a v / d_a for F_a faces and voxels of volume v. So the
    layer's volume is v F, F the faces of all axes: no mesh is needed, and anisotropy is dealt with. The border is
    uniformly distributed in its layer, and whoever drew it may have been on the same side all along: the standard
    deviation is v F / sqrt(12). (Independent errors would average out to far less.)
    Faces at the border of the view are no border of the liver. What readers and networks add is not in this number.
    """
    voxel = float(np.prod(spacing)) / 1000
    faces = sum(int(np.count_nonzero(np.diff(inside, axis=axis))) for axis in range(3))
    return int(np.count_nonzero(inside)) * voxel, faces * voxel / math.sqrt(12)


def _cut(inside: np.ndarray, seen: np.ndarray, box: Box, shape: tuple[int, ...], affine: np.ndarray) -> dict[str, Any]:
    """Where the liver touches the border of the grid or padding within it (a round field of view, empty slices)."""
    spacing, codes = spacing_of(affine), nib.aff2axcodes(affine)
    areas = dict.fromkeys(SIDES.values(), 0.0)
    for axis in range(3):
        liver, view = np.moveaxis(inside, axis, 0), np.moveaxis(seen, axis, 0)
        starts = np.count_nonzero(liver[1:] & ~view[:-1]) + (box[axis].start == 0) * np.count_nonzero(liver[0])
        ends = np.count_nonzero(liver[:-1] & ~view[1:]) + (box[axis].stop == shape[axis]) * np.count_nonzero(liver[-1])
        face = float(np.prod(spacing)) / spacing[axis] / 100  # cm2
        areas[SIDES[OPPOSITE[codes[axis]]]], areas[SIDES[codes[axis]]] = starts * face, ends * face
    sides = [side for side, area in areas.items() if area >= CUT_CM2]
    return {
        "partial": bool(sides),
        "cut_sides": ", ".join(sides) or None,
        "cut_area_cm2": sum(areas[side] for side in sides),
    }


def _extents(inside: np.ndarray, box: Box, affine: np.ndarray) -> dict[str, float | None]:
    """The sides of the box around all voxels, corners included, along the body's axes."""
    columns = inside.any(axis=2)
    if not columns.any():
        return {f"extent_{name}_mm": None for name in EXTENTS}
    i, j = np.nonzero(columns)
    ends = inside[i, j]  # a linear function is greatest at a column's end: no other voxel needs a look
    first, last = ends.argmax(axis=1), inside.shape[2] - 1 - ends[:, ::-1].argmax(axis=1)
    points = np.concatenate([np.stack([i, j, k], axis=1) for k in (first, last)])
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
        ml = ml if ml is None or ml > 0 else None  # Vauthey's line crosses 0 at 0.63 m2: it is for adults
        result[f"standard_{name}_ml"] = ml
        result[f"volume_of_{name}_percent"] = 100 * volume / ml if volume and ml else None
    for name, percent in REMNANTS.items():
        least = result["standard_vauthey_ml"] and result["standard_vauthey_ml"] * percent / 100
        result[f"remnant_{name}_ml"] = least
        result[f"remnant_{name}_percent"] = 100 * least / volume if volume and least else None
    return result
