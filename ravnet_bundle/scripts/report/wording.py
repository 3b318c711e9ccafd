"""The names and the numbers of measures, as a person reads them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

UNITS = {"ml": "ml", "mm": "mm", "cm": "cm", "cm2": "cm²", "m2": "m²", "kg": "kg", "percent": "%", "hu": "HU", "s": "s"}
SPELT = {"hu": "HU", "sd": "SD", "bsa": "body surface", "urata": "Urata", "vauthey": "Vauthey"}
NAMES = {  # where the key alone would not be understood
    "weights": "Weights, SHA-256",
    "partial": "Cut by the field of view",
    "hu_margin_mm": "HU taken from the border by",
    "hu_saturated_percent": "HU at the scan's limits",
    "standard_urata_ml": "Standard volume by Urata",
    "standard_vauthey_ml": "Standard volume by Vauthey",
    "volume_of_urata_percent": "Volume, of Urata's standard",
    "volume_of_vauthey_percent": "Volume, of Vauthey's standard",
    "remnant_normal_ml": "Least remnant, normal liver",
    "remnant_after_chemotherapy_ml": "Least remnant, after chemotherapy",
    "remnant_cirrhosis_ml": "Least remnant, cirrhosis",
    "remnant_normal_percent": "Of the volume, normal liver",
    "remnant_after_chemotherapy_percent": "Of the volume, after chemotherapy",
    "remnant_cirrhosis_percent": "Of the volume, cirrhosis",
}


def rows(measures: Mapping[str, object]) -> list[tuple[str, str]]:
    """Each known measure's label and value; an uncertainty is set behind the value that it belongs to."""
    found = []
    for key, value in measures.items():
        if value is None or (_split(key)[0].endswith("_uncertainty") and key.replace("_uncertainty", "") in measures):
            continue
        text = number(value)
        stem, unit = _split(key)
        uncertainty = measures.get(f"{stem}_uncertainty" + key[len(stem) :])
        if isinstance(value, float) and isinstance(uncertainty, float):
            text += f" ± {uncertainty:.{_decimals(value)}f}"
        found.append((_label(key), f"{text}\u00a0{unit}" if unit else text))  # a line does not end before a unit
    return found


def number(value: object) -> str:
    """A value in as many digits as can matter: `1432`, `31.4`, `0.87`, `yes`, `12.0 × 9.50`."""
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
    if key in NAMES:
        return NAMES[key]
    words = [re.sub(r"^p0*(\d+)$", r"percentile \1", word) for word in _split(key)[0].split("_")]
    text = " ".join(SPELT.get(word, word) for word in words)
    return text[:1].upper() + text[1:]
