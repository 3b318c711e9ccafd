"""The verdict: observations compared with limits, and the reasons in words.

Limits of anatomy and physics are in this module. How sure the network usually is depends on weights and grid:
`python benchmarks/verdict.py DATA --write` derives these limits from scans with a known truth, into
`models/verdict.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..inference.provenance import BUNDLE

LIMITS = BUNDLE / "models" / "verdict.json"
DERIVED = "derived"  # this limit is in the file
MEANINGS = {  # of a verdict; DICOM allows 64 characters
    "ok": "No sign of a failure was found. Check the contours anyway.",
    "review": "Something is unusual. Check the contours before any use.",
    "reject": "Do not use the mask or the numbers.",
}
NO_LIVER_ML = 50.0  # less is no liver, or a useless tip of one


class Verdict(NamedTuple):
    """level: one of `MEANINGS`; reasons: one sentence each."""

    level: str
    reasons: tuple[str, ...]


class Check(NamedTuple):
    """An observation's limits, the texts below and above them, and the limit for "reject"."""

    name: str
    low: float | str | None
    high: float | str | None
    below: str = ""
    above: str = ""
    reject_below: float | None = None


# Volume: 1504 +- 356 ml in healthy adults, twice that in disease. HU: from steatosis to the arterial and portal venous
# phase; SD from vessels, tumours and the noise of thin slices. Noise on the network's grid: the training adds up to
# 12 % of the window.
CHECKS = (
    Check(
        "volume_ml", 500.0, 3500.0,
        "The liver is small: {value:.0f} ml, usually over {low:.0f} ml. Parts may be missing, or it is no liver.",
        "The liver is large: {value:.0f} ml, usually under {high:.0f} ml. Neighbours may have been taken for liver.",
    ),
    Check(
        "hu_median", 25.0, 170.0,
        "The liver is dark: median {value:.0f} HU, expected over {low:.0f} HU. Wrong organ, wrong scale, no CT?",
        "The liver is bright: median {value:.0f} HU, expected under {high:.0f} HU. Wrong organ or wrong scale?",
    ),
    Check("hu_sd", None, 60.0, "", "HU in the liver spread by {value:.0f} (SD), expected under {high:.0f}: noise, or "
          "several tissues."),
    Check("hu_saturated_percent", None, 25.0, "", "{value:.0f} % of the liver lie at an end of the stored window: HU "
          "statistics are biased."),
    Check("pixel_spacing_mm", None, 3.5, "", "Pixels of {value:.1f} mm are coarse, expected under {high:.1f} mm."),
    Check("slice_spacing_mm", None, 12.0, "", "Slices {value:.1f} mm apart are thick, expected under {high:.0f} mm."),
    Check("liver_right_of_middle_percent", 0.0, None, "The liver lies left of the body's middle: a mirrored scan, "
          "situs inversus or the wrong organ."),
    Check("liver_front_of_middle_percent", DERIVED, None, "The liver lies far back in the body: a scan turned front to "
          "back, or the wrong organ."),
    Check("parts_apart_percent", None, 3.0, "", "Separate parts, {value:.0f} % of the liver's volume, were marked "
          "as liver and left out, the largest of {largest:.0f} ml."),
    Check("noise_percent_of_window", None, 10.0, "", "The scan is noisy: {value:.1f} % of the window's width, "
          "usually under {high:.1f} %."),
    Check("expected_dice", DERIVED, None, "The network is unsure: by its own probabilities a Dice of {value:.3f}, "
          "usually over {low:.3f}.", reject_below=0.8),
    Check("border_width_mm", None, DERIVED, "", "The liver's border is vague: {value:.1f} mm wide, usually under "
          "{high:.1f} mm."),
    Check("repeat_dice", DERIVED, None, "A second pass over {slices} slightly smaller slices agrees poorly: Dice "
          "{value:.3f}, usually over {low:.3f}.", reject_below=0.7),
    Check("area_step_percent", None, DERIVED, "", "The liver's area jumps from slice to slice, by {value:.0f} % of the "
          "greatest, usually under {high:.0f} %."),
    Check("changed_by_3d_percent", None, DERIVED, "", "The three-dimensional steps changed much of the mask: "
          "{value:.1f} % of the liver, usually under {high:.1f} %."),
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """The limits for one network.

    Attributes:
        weights: sha256 of the weights.
        grid: `pixel_size`, `slice_step` and `slab` of the grid, mm.
        temperature: divisor of the network's logits that calibrates its probabilities.
        bounds: name of an observation -> its lowest and highest usual value, `None` for no limit.
    """

    weights: str
    grid: Mapping[str, float]
    temperature: float
    bounds: Mapping[str, tuple[float | None, float | None]]

    @classmethod
    def load(cls, path: Path = LIMITS) -> Limits:
        return cls(**json.loads(path.read_text()))

    def save(self, path: Path = LIMITS) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def doubts(self, weights: str, grid: Mapping[str, float]) -> list[str]:
        """Why these limits may not hold for a mask; empty if they belong to its weights and grid."""
        other = [what for what, same in (("weights", weights == self.weights), ("grid", grid == self.grid)) if not same]
        if not other:
            return []
        return [f"The verdict's limits belong to another network ({' and '.join(other)} differ): derive them anew."]


def judge(observed: Mapping[str, Any], limits: Limits, doubts: Iterable[str] = ()) -> Verdict:
    """The verdict on the values of `observe`; each doubt, about the CT or the limits, is a reason for a review."""
    volume, reasons = observed["volume_ml"], list(doubts)
    if volume < NO_LIVER_ML:
        return Verdict("reject", (*reasons, f"No liver was found ({volume:.0f} ml). Is it in the scan?"))
    if observed["cut_sides"]:
        reasons.append(f"The field of view cuts the liver ({observed['cut_sides']}): its volume is partial.")
    reject = False
    for check in CHECKS:
        value = observed[check.name]
        if value is None:
            continue
        usual = limits.bounds.get(check.name, (None, None))
        low, high = (own if limit == DERIVED else limit for limit, own in zip((check.low, check.high), usual))
        below, above = low is not None and not value >= low, high is not None and not value <= high  # nan is outside
        if below or above:
            text = check.below if below else check.above
            others = {"slices": observed["repeat_slices"], "largest": observed["largest_part_apart_ml"]}
            reasons.append(text.format(value=value, low=low, high=high, **others))
        reject |= check.reject_below is not None and value < check.reject_below
    return Verdict("reject" if reject else "review" if reasons else "ok", tuple(reasons))
