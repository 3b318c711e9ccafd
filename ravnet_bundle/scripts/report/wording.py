"""Names and numbers of measures for people."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

UNITS = {"ml": "ml", "mm": "mm", "cm": "cm", "cm2": "cm²", "m2": "m²", "kg": "kg", "percent": "%", "hu": "HU", "s": "s"}
SPELT = {"hu": "HU", "sd": "SD", "bsa": "body surface", "urata": "Urata", "vauthey": "Vauthey"}
NAMES = {  # labels, if the key alone is not clear
    "weights": "Weights, SHA-256",
    "partial": "Cut by the field of view",
    "cut_sides": "Cut at the side",
    "extent_left_right_mm": "Width, left to right",
    "extent_posterior_anterior_mm": "Depth, back to front",
    "extent_inferior_superior_mm": "Height, feet to head",
    "standard_urata_ml": "Standard volume by Urata",
    "standard_vauthey_ml": "Standard volume by Vauthey",
    "volume_of_urata_percent": "Volume, of Urata's standard",
    "volume_of_vauthey_percent": "Volume, of Vauthey's standard",
    "remnant_normal_ml": "Least remnant, normal liver",
    "remnant_after_chemotherapy_ml": "Least remnant, after chemotherapy",
    "remnant_cirrhosis_ml": "Least remnant, cirrhosis",
    "remnant_normal_percent": "Least remnant in % of the volume, normal liver",
    "remnant_after_chemotherapy_percent": "Least remnant in % of the volume, after chemotherapy",
    "remnant_cirrhosis_percent": "Least remnant in % of the volume, cirrhosis",
    "bsa_m2": "Body surface area",
    "contrast_guess": "Contrast agent",
    "steatosis_hint": "Fatty liver (below 40 HU)",
}
DETAILS = {  # the measures under "Details": label, or "" for one made from the key, and explanation
    "pixel_spacing_mm": ("Pixel size of the CT", "the larger one, within a slice"),
    "slice_spacing_mm": ("Slice distance of the CT", "from one slice to the next"),
    "hu_margin_mm": ("HU margin from the border", "HU closer to the border are not used"),
    "hu_saturated_percent": ("HU at the scan's limits", "a high value: the scan was clipped to a window"),
    "liver_right_of_middle_percent": (
        "Liver's centre, to the right",
        "of half the body's width; below 0: the scan may be mirrored",
    ),
    "liver_front_of_middle_percent": (
        "Liver's centre, to the front",
        "of half the body's depth; far from 0: the scan may be turned",
    ),
    "expected_dice": ("Expected Dice", "overlap with an expert's mask that the network expects: 1 is perfect"),
    "uncalibrated_expected_dice": ("Expected Dice, not calibrated", "its raw probabilities are too confident"),
    "border_width_mm": ("Width of the uncertain border", "where the network is uncertain"),
    "changed_by_3d_percent": ("Changed by the 3D steps", "of the mask: added and removed after the network"),
    "parts_apart_percent": ("Parts apart, left out", "of the mask: separate parts that the network marked"),
    "largest_part_apart_ml": ("Largest part apart", ""),
    "area_step_percent": ("Largest area step", "of the largest area, from slice to slice"),
    "noise_percent_of_window": ("Noise in the liver", "standard deviation, of the window's width"),
    "repeat_dice": ("Dice of a second pass", "overlap with a second pass over slightly smaller slices"),
    "repeat_slices": ("Slices of the second pass", ""),
    **{f"hu_p{n:02}": ("", "") for n in (5, 25, 75, 95)},
    "cut_area_cm2": ("", "of the mask, at the border of the view"),
}


class Row(NamedTuple):
    """One measure: label, value with unit, and an explanation if it is a detail."""

    label: str
    value: str
    hint: str = ""
    detail: bool = False


def rows(measures: Mapping[str, object]) -> list[Row]:
    """The known measures; an uncertainty follows its value."""
    found = []
    for key, value in measures.items():
        if value is None or (_split(key)[0].endswith("_uncertainty") and key.replace("_uncertainty", "") in measures):
            continue
        text = number(value)
        stem, unit = _split(key)
        uncertainty = measures.get(f"{stem}_uncertainty" + key[len(stem) :])
        if isinstance(value, float) and isinstance(uncertainty, float):
            text += f" ± {uncertainty:.{_decimals(value)}f}"
        text = f"{text}\u00a0{unit}" if unit else text  # no line break before a unit
        found.append(Row(_label(key), text, DETAILS.get(key, ("", ""))[1], key in DETAILS))
    return found


def number(value: object) -> str:
    """A value with meaningful digits: `1432`, `31.4`, `0.87`, `yes`, `12.0 × 9.50`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{_decimals(value)}f}" if math.isfinite(value) else "unknown"
    if isinstance(value, (list, tuple)):
        return " × ".join(map(number, value))
    return str(value)


def _decimals(value: float) -> int:
    return 0 if abs(value) >= 100 or value == 0 else 1 if abs(value) >= 10 else 2


def _split(key: str) -> tuple[str, str]:
    """`volume_ml` -> `volume`, `ml`; `contrast_guess` -> `contrast_guess` and no unit."""
    stem, _, ending = key.rpartition("_")
    return (stem, UNITS[ending]) if stem and ending in UNITS else (key, "")


def _label(key: str) -> str:
    """`volume_ml` -> `Volume`; `hu_p05` -> `HU percentile 5`."""
    if label := NAMES.get(key) or DETAILS.get(key, ("", ""))[0]:
        return label
    words = [re.sub(r"^p0*(\d+)$", r"percentile \1", word) for word in _split(key)[0].split("_")]
    text = " ".join(SPELT.get(word, word) for word in words)
    return text[:1].upper() + text[1:]
