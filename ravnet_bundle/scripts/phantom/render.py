"""From anatomy to Hounsfield units: sampling slice by slice, partial volume, noise."""

from __future__ import annotations

import numpy as np
from scipy.fft import irfft2, rfft2, rfftfreq, fftfreq
from scipy.spatial.transform import Rotation

from .anatomy import Organ
from .shapes import Points, Waves
from .tissues import PHASES, TISSUES


class World:
    """One patient: where they lie, how they are deformed, and their tissues' HU.

    Args:
        seed: the patient.
        phase: contrast phase.
    """

    def __init__(self, seed: int, phase: str) -> None:
        rng = np.random.default_rng([seed, 1])
        self.scale = rng.uniform(0.95, 1.05) * rng.uniform(0.97, 1.03, 3)
        self.turn = Rotation.from_euler("xyz", rng.normal(0, [1.0, 1.0, 2.5]), degrees=True).inv().as_matrix() / self.scale[:, None]
        self.warps = [[(Waves(rng, (130, 300), 8), 3.2), (Waves(rng, (55, 110), 12), 1.2)] for _ in "xyz"]
        self.grain = {"coarse": Waves(rng, (14, 45), 24), "medium": Waves(rng, (6, 14), 32), "fine": Waves(rng, (2.5, 6), 40)}
        self.noise = 11 * rng.uniform(0.75, 1.3)  # HU at 5 mm; 8 to 14 there makes 20 to 35 at 1 mm
        self.hu = {name: getattr(t, phase) + np.clip(rng.normal(0, 0.04 * abs(t[PHASES.index(phase)]) ** 0.75 + 1), -20, 20) for name, t in TISSUES.items()}

    def reach(self, extent: tuple[float, float]) -> tuple[float, float]:
        """Where an extent along z of the patient's frame surely ends in the scanner's world, mm."""
        low, high = (z * self.scale[2] for z in extent)
        return low - 18, high + 18

    def points(self, x: np.ndarray, y: np.ndarray, z: float) -> Points:
        """The slice z of the scanner's world (mm) in the patient's own frame."""
        body = []
        for row, warps in zip(self.turn.astype(np.float32), self.warps):
            place = row[0] * x[:, None] + row[1] * y[None] + row[2] * np.float32(z)
            for wave, mm in warps:
                place = place + np.float32(mm) * wave.plane(x, y, z)
            body.append(place.astype(np.float32))
        return Points(*body, grain={name: wave.plane(x, y, z) for name, wave in self.grain.items()})


class Painter:
    """Paints the organs of one patient over each other, in their order."""

    def __init__(self, organs: list[Organ], world: World, edge: float) -> None:
        self.layers = [(organ, shape) for organ in organs for shape in organ.shapes]
        self.low, self.high = (np.array([getattr(shape, end)[2] for _, shape in self.layers]) for end in ("low", "high"))
        self.world, self.edge = world, edge

    def __call__(self, points: Points) -> tuple[np.ndarray, np.ndarray]:
        """Edges are softened over `edge` mm, the partial volume effect in the plane -> HU float32 (X, Y), label uint8 (X, Y)."""
        hu = np.full(points.x.shape, self.world.hu["air"], np.float32)
        label = np.zeros(points.x.shape, np.uint8)
        for n in np.flatnonzero((self.low <= points.z.max()) & (self.high >= points.z.min())):
            organ, shape = self.layers[n]
            window = points.window(shape)
            if window is None:
                continue
            at, tissue = points.crop(window), TISSUES[organ.tissue]
            distance = shape.distance(at)
            label[window][distance < 0] = organ.label
            cover = np.clip(np.float32(0.5) - distance * np.float32(1 / self.edge), 0, 1)
            value = np.float32(self.world.hu[organ.tissue])
            if tissue.amplitude:
                value = value + np.float32(tissue.amplitude) * at.grain[tissue.grain]
            hu[window] += cover * (value - hu[window])
        return hu, label


def noise_filter(shape: tuple[int, int], spacing: tuple[float, float]) -> np.ndarray:
    """Amplitude over frequency (X, Y // 2 + 1) of CT noise: a ramp (filtered back projection) with a soft roll-off, unit variance."""
    f = np.hypot(fftfreq(shape[0], spacing[0])[:, None], rfftfreq(shape[1], spacing[1])[None])
    amplitude = np.sqrt(f) * np.exp(-((f / 0.45) ** 2))
    weight = np.full(amplitude.shape[1], 2.0)  # columns of a half spectrum count twice, but for the first and, if even, the last
    weight[0] = 1
    if shape[1] % 2 == 0:
        weight[-1] = 1
    return (amplitude / np.sqrt((amplitude**2 * weight).sum() / (shape[0] * shape[1]))).astype(np.float32)


def noise(seed: int, number: int, amplitude: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Unit-variance noise (X, Y) float32 of slice `number`, band-pass in the plane and correlated with the slice below."""
    white = [np.random.default_rng([seed, 3, n]).standard_normal(shape, np.float32) for n in (number, number + 1)]
    return irfft2(rfft2(white[0] * np.float32(0.35) + white[1] * np.float32(0.937)) * amplitude, s=shape)
