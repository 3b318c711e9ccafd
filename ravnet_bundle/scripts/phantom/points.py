"""The points of one axial slice, where the anatomy is evaluated, and the smooth random fields that deform it.

Everything is in millimetres in the patient's frame: x to the right, y to the front, z to the head (RAS+).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator

import numpy as np

Window = tuple[slice, slice]


class Points:
    """The points of one axial slice in the patient's frame: x rises along the rows, y along the columns.

    Args:
        x, y, z: float32 arrays of shape (X, Y), mm.
        textures: name -> function that makes float32 (X, Y), zero mean, unit variance; called when first needed.
    """

    def __init__(
        self, x: np.ndarray, y: np.ndarray, z: np.ndarray, textures: dict[str, Callable[[], np.ndarray]] | None = None
    ) -> None:
        self.x, self.y, self.z = x, y, z
        self._whole: Points | None = None  # not `self`, to avoid a reference cycle
        self._window = slice(None), slice(None)
        self._known: dict[Hashable, np.ndarray] = {}
        self._textures = textures or {}
        rising, falling = np.maximum.accumulate, lambda v: np.minimum.accumulate(v[::-1])[::-1]
        self._ends = (rising(x.max(1)), falling(x.min(1))), (rising(y.max(0)), falling(y.min(0))), (z.max(), z.min())

    def windows(self, low: np.ndarray, high: np.ndarray) -> Iterator[tuple[int, Window]]:
        """The number and index window of each box, low and high (N, 3) mm, that meets this slice."""
        (x1, x0), (y1, y0), (z1, z0) = self._ends
        start = np.searchsorted(x1, low[:, 0]), np.searchsorted(y1, low[:, 1])
        stop = np.searchsorted(x0, high[:, 0], "right"), np.searchsorted(y0, high[:, 1], "right")
        met = (low[:, 2] <= z1) & (high[:, 2] >= z0) & (start[0] < stop[0]) & (start[1] < stop[1])
        for n in np.flatnonzero(met):
            yield int(n), (slice(start[0][n], stop[0][n]), slice(start[1][n], stop[1][n]))

    def crop(self, window: Window) -> Points:
        """A view of a window of this slice; cached values are shared."""
        view = object.__new__(Points)
        view.x, view.y, view.z = self.x[window], self.y[window], self.z[window]
        view._whole, view._window, view._known, view._textures = self, window, self._known, self._textures
        return view

    def raised(self, floor: float) -> Points:
        """The same points with z at least `floor`, for a dome on a column."""
        view = object.__new__(Points)
        view.__dict__.update(self.__dict__, z=np.maximum(self.z, np.float32(floor)))
        return view

    def texture(self, name: str) -> np.ndarray:
        if name not in self._known:
            self._known[name] = self._textures[name]()
        return self._known[name][self._window]

    def once(self, distance: Distance) -> np.ndarray:
        """The distance, computed once for the whole slice and cached."""
        if distance not in self._known:
            self._known[distance] = distance(self._whole or self)
        return self._known[distance][self._window]


Distance = Callable[[Points], np.ndarray]


class Waves:
    """A smooth random field: a sum of plane waves, in world space, independent of the sampling grid.

    Args:
        rng: source of the directions and phases.
        bands: shortest and longest wavelength (mm), number of waves, and standard deviation of each part of the field.
    """

    def __init__(self, rng: np.random.Generator, *bands: tuple[float, float, int, float]) -> None:
        count = np.array([band[2] for band in bands])
        short, long, deviation = (np.repeat([band[n] for band in bands], count) for n in (0, 1, 3))
        direction = rng.normal(size=(count.sum(), 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        self.k = direction * (2 * np.pi / rng.uniform(short, long))[:, None]
        self.phase = rng.uniform(0, 2 * np.pi, count.sum())
        self.amplitude = deviation * np.sqrt(2 / np.repeat(count, count))

    def plane(self, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """The field on a slice: x (X,), y (Y,), z scalar, all mm -> (X, Y). cos(a + b) makes it a matrix product."""
        a = np.outer(x, self.k[:, 0]) + self.k[:, 2] * z + self.phase
        b = np.outer(self.k[:, 1], y)
        left = np.concatenate([self.amplitude * np.cos(a), -self.amplitude * np.sin(a)], 1).astype(np.float32)
        right = np.concatenate([np.cos(b), np.sin(b)], 0).astype(np.float32)
        # a few rows at a time: BLAS threads for the whole would cost more than they save
        rows = max(1, 250_000 // right.size)
        return np.concatenate([left[i : i + rows] @ right for i in range(0, len(left), rows)])
