"""From anatomy to HU: sampling slice by slice, partial volume, noise."""

from collections.abc import Sequence
from functools import partial

import numpy as np
from scipy.fft import fftfreq, irfft2, rfft2
from scipy.spatial.transform import Rotation

from .body import Organ
from .points import Points, Waves
from .tissues import PHASES, TISSUES


class World:
    """One patient in the scanner: position, deformation, HU of the tissues.

    Args:
        seed: the patient.
        phase: contrast phase, one of PHASES.
    """

    def __init__(self, seed: int, phase: str) -> None:
        rng = np.random.default_rng([seed, 1])
        self.scale = rng.uniform(0.95, 1.05) * rng.uniform(0.98, 1.02, 3)
        lie = Rotation.from_euler("xyz", np.clip(rng.normal(0, [1.0, 1.0, 2.5]), -6, 6), degrees=True)
        self.turn = lie.inv().as_matrix() / self.scale[:, None]
        self.warps = [Waves(rng, (130, 300, 8, 3.2), (55, 110, 12, 1.2)) for _ in "xyz"]
        sizes = {
            "coarse": (14, 45, 16, 1.0),
            "medium": (6, 14, 24, 1.0),
            "fine": (2.5, 6, 28, 1.0),
            "sheets": (45, 100, 16, 1.0),
        }
        self.textures = {name: Waves(rng, band) for name, band in sizes.items()}
        self.noise = 11 * rng.uniform(0.75, 1.3)  # HU at 5 mm; 8 to 14 there makes 20 to 35 at 1 mm
        bolus = rng.uniform(0.88, 1.1)  # this patient's share of the usual enhancement
        self.hu = {}
        for name, tissue in TISSUES.items():
            enhanced = tissue.native + bolus * (tissue[:3][PHASES.index(phase)] - tissue.native)
            self.hu[name] = enhanced + (rng.normal(0, 1 + 0.025 * min(abs(enhanced), 300)) if enhanced > -500 else 0)
        if rng.random() < 1 / 8:  # steatosis
            self.hu["liver"] -= rng.uniform(15, 30)

    def reach(self, extent: tuple[float, float]) -> tuple[float, float]:
        """Bounds, in the scanner's world (mm), of an extent along z in the patient's frame."""
        low, high = (z * self.scale[2] for z in extent)
        return low - 18, high + 18

    def points(self, x: np.ndarray, y: np.ndarray, z: float) -> Points:
        """The slice z of the scanner's world (mm) in the patient's frame."""
        body = []
        for row, warp in zip(self.turn, self.warps):
            place = warp.plane(x, y, z)
            place += (row[0] * x + row[2] * z).astype(np.float32)[:, None]
            place += (row[1] * y).astype(np.float32)
            body.append(place)
        return Points(
            body[0], body[1], body[2], {name: partial(wave.plane, x, y, z) for name, wave in self.textures.items()}
        )


class Painter:
    """Paints the organs of one patient over each other, in order."""

    def __init__(self, organs: list[Organ], world: World, edge: float) -> None:
        self.layers = [(organ, shape) for organ in organs for shape in organ.shapes]
        self.low, self.high = (np.array([getattr(shape, end) for _, shape in self.layers]) for end in ("low", "high"))
        self.world, self.edge = world, edge

    def __call__(self, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """HU float32 and label uint8, (X, Y); edges are softened over `edge` mm, the in-plane partial volume."""
        hu = np.full(points.x.shape, self.world.hu["air"], np.float32)
        label = np.zeros(points.x.shape, np.uint8)
        for n, window in points.windows(self.low, self.high):
            organ, shape = self.layers[n]
            at, tissue = points.crop(window), TISSUES[organ.tissue]
            distance = shape.distance(at)
            label[window][distance < 0] = organ.label
            cover = distance * np.float32(-1 / self.edge)
            cover += np.float32(0.5)
            np.clip(cover, 0, 1, out=cover)
            change = np.float32(self.world.hu[organ.tissue]) - hu[window]
            if tissue.amplitude:
                change += np.float32(tissue.amplitude) * at.texture(tissue.texture)
            change *= cover
            hu[window] += change
        return hu, label


def noise_filter(shape: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """Amplitude spectrum (X, Y // 2 + 1) of CT noise: filtered back projection's ramp, rolled off; unit variance."""
    f = np.hypot(fftfreq(shape[0], spacing[0])[:, None], fftfreq(shape[1], spacing[1])[None])
    amplitude = np.sqrt(f) * np.exp(-((f / 0.45) ** 2)) + 1e-6  # never zero, even for a single pixel
    return (amplitude / np.sqrt((amplitude**2).mean()))[:, : shape[1] // 2 + 1].astype(np.float32)


def noise(seed: int, number: int, amplitude: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Noise (X, Y) float32 of slice `number`: unit variance, band-pass in the plane, correlated with the next slice."""
    white = [np.random.default_rng([seed, 3, n]).standard_normal(shape, np.float32) for n in (number, number + 1)]
    return irfft2(rfft2(white[0] * np.float32(0.35) + white[1] * np.float32(0.937)) * amplitude, s=shape)
