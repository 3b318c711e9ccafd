"""Checks that a volume's values can be HU of a CT."""

from pathlib import Path

import numpy as np

from .errors import CTError

AIR = -1024  # HU given to voxels outside a scanner's field of view
# HU. Noise rarely goes below this value. Outside the field of view, scanners and programs write lower values (-1500,
# -2000, -3024, -8192, -32768, ...). Resampling mixes them into the edge of the field of view.
BELOW_AIR = -1200
PADDING = -2000.0
FAT = -20.0  # HU; fat, lung and air are below, even in a volume clipped to a narrow window
SOFT_TISSUE = (-40.0, 160.0)  # HU; a CT of the trunk shows some, whatever its window or its contrast phase
BONE = 300.0  # HU
HIGHEST = 1e5  # HU; metal on an extended scale reaches 30,000
SPREAD = 100.0  # HU from lowest to highest; the narrowest window in use is 150 wide
GREYS = 10  # a mask has fewer distinct values


class Hounsfield:
    """Counts values slice by slice and sets padding to air, in one pass over the volume.

    It counts every second voxel along both axes, without padding.
    """

    def __init__(self) -> None:
        self.lowest, self.highest = np.inf, -np.inf
        self.padded = self.infinite = self.sampled = 0
        self.fat = self.soft = self.bone = 0
        self.greys: set[float] = set()

    def take(self, plane: np.ndarray) -> None:
        """Sets the padding of one slice `(X, Y)`, int16 or float32, to air, in place, and counts its values."""
        lowest, highest = float(plane.min()), float(plane.max())
        if not (np.isfinite(lowest) and np.isfinite(highest)):
            self.infinite += int((~np.isfinite(plane)).sum())
            return
        sample = plane[::2, ::2].astype(np.float32)
        self.lowest = min(self.lowest, lowest)
        if lowest < BELOW_AIR:
            padding = plane < BELOW_AIR
            sample = sample[~padding[::2, ::2]]
            plane[padding] = AIR
            self.padded += int(padding.sum())
        self.highest = max(self.highest, highest)
        self.sampled += sample.size
        self.fat += int((sample < FAT).sum())
        self.soft += int(((sample > SOFT_TISSUE[0]) & (sample < SOFT_TISSUE[1])).sum())
        self.bone += int((sample > BONE).sum())
        if len(self.greys) < GREYS:
            self.greys.update(np.unique(sample).tolist())

    @property
    def notes(self) -> tuple[str, ...]:
        """A note if padding was set to air."""
        return (f"{self.padded} voxels of padding, below {BELOW_AIR:g} HU, set to {AIR:g} HU",) if self.padded else ()

    def check(self, source: Path | str) -> None:
        """Raises `CTError` unless the values are finite and can be air, fat, soft tissue and bone in HU.

        The limits are wide: a CT that was clipped to an abdominal window or cropped to the body passes.
        """
        if self.infinite:
            raise CTError(f"{source}: {self.infinite} voxels are not finite; repair or export it again.")
        found = f"{source}: values {self.lowest:g} to {self.highest:g}"
        total = max(1, self.sampled)
        low, high = SOFT_TISSUE
        if self.lowest >= 0:
            raise CTError(
                f"{found} are not HU: fat and air are below 0; is it an MR, a PET, a mask, a normalised "
                "image, or values without their rescale intercept? Give a CT in HU."
            )
        if self.highest > HIGHEST or self.lowest < -HIGHEST:
            raise CTError(f"{found} are not HU; damaged, or of another byte order? Export it again.")
        if self.soft < 0.02 * total:
            share = f"{self.soft / total:.1%}" if self.soft else "no value"
            advice = "was the rescale applied twice? Give" if self.padded else "give"
            raise CTError(
                f"{found}, {share} between {low:g} and {high:g} HU, soft tissue; {advice} a CT of the trunk in HU."
            )
        if self.highest - self.lowest < SPREAD or len(self.greys) < GREYS:
            raise CTError(f"{found} are too few or too close: a mask or a normalised image? Give a CT in HU.")
        if self.fat < 0.01 * total or self.bone > 0.5 * (self.sampled - self.fat):
            raise CTError(
                f"{found}, {self.fat / total:.0%} below {FAT:g} HU and {self.bone / total:.0%} above {BONE:g}: a CT of "
                "a trunk has more fat and air, and less bone than soft tissue; is it a CT of the head or a limb, or an "
                "MR or a PET? Give a CT of the abdomen in HU."
            )
