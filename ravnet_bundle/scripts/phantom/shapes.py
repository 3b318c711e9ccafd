"""Signed distances: the few analytic shapes that the anatomy is built from.

Everything is in millimetres in the patient's frame: x to the right, y to the front, z to the head (RAS+). A shape's distance is negative
inside and is evaluated on the points of one axial slice at a time; its box lets the renderer skip the pixels that it cannot reach.
"""

from __future__ import annotations

from typing import Callable, NamedTuple

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

EVERYWHERE = (-1e4, -1e4, -1e4), (1e4, 1e4, 1e4)


class Points:
    """The points of one axial slice in the patient's frame.

    Args:
        x, y, z: float32 arrays of shape (X, Y), mm.
        grain: named float32 arrays of shape (X, Y), zero mean and unit variance: the textures that tissues may show.
    """

    def __init__(self, x: np.ndarray, y: np.ndarray, z: np.ndarray, grain: dict[str, np.ndarray]) -> None:
        self.x, self.y, self.z, self.grain = x, y, z, grain
        self._whole, self._window, self._known = self, (slice(None), slice(None)), {}
        self._extent = ((x.min(1), x.max(1)), (y.min(0), y.max(0)), (z.min(), z.max()))

    def window(self, shape: Shape) -> tuple[slice, slice] | None:
        """The smallest index window that holds the shape's box, or None where the slice misses it."""
        (x0, x1), (y0, y1), (z0, z1) = self._extent
        if z1 < shape.low[2] or z0 > shape.high[2]:
            return None
        rows = np.flatnonzero((x1 >= shape.low[0]) & (x0 <= shape.high[0]))
        columns = np.flatnonzero((y1 >= shape.low[1]) & (y0 <= shape.high[1]))
        if not (rows.size and columns.size):
            return None
        return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

    def crop(self, window: tuple[slice, slice]) -> Points:
        """A view of these points in a window; what is known once about the slice stays known."""
        view = object.__new__(Points)
        view.x, view.y, view.z = self.x[window], self.y[window], self.z[window]
        view.grain = {name: grain[window] for name, grain in self.grain.items()}
        view._whole, view._window, view._known = self._whole, window, self._known
        return view

    def once(self, distance: Distance) -> np.ndarray:
        """The distance, computed once for the whole slice and shared by every shape that is cut by it."""
        if distance not in self._known:
            self._known[distance] = distance(self._whole)
        return self._known[distance][self._window]


Distance = Callable[[Points], np.ndarray]


class Shape(NamedTuple):
    """A signed distance (mm, negative inside) and the box (mm) outside which it is positive."""

    distance: Distance
    low: tuple[float, float, float] = EVERYWHERE[0]
    high: tuple[float, float, float] = EVERYWHERE[1]


class Waves:
    """A smooth random field of unit variance, a sum of plane waves, the same in world space on whatever grid it is sampled.

    Args:
        rng: source of the directions and phases.
        wavelengths: shortest and longest wavelength, mm.
        count: number of waves.
    """

    def __init__(self, rng: np.random.Generator, wavelengths: tuple[float, float], count: int) -> None:
        direction = rng.normal(size=(count, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        self.k = direction * (2 * np.pi / rng.uniform(*wavelengths, size=(count, 1)))
        self.phase = rng.uniform(0, 2 * np.pi, count)
        self.scale = np.sqrt(2 / count)

    def plane(self, x: np.ndarray, y: np.ndarray, z: float) -> np.ndarray:
        """The field on a slice: x (X,), y (Y,), z scalar, all mm -> (X, Y). cos(a + b) makes it one matrix product."""
        a = np.outer(x, self.k[:, 0]) + self.k[:, 2] * z + self.phase
        b = np.outer(self.k[:, 1], y)
        left = np.concatenate([np.cos(a), -np.sin(a)], 1).astype(np.float32)
        right = np.concatenate([np.cos(b), np.sin(b)], 0).astype(np.float32)
        return self.scale.astype(np.float32) * (left @ right)


def ellipsoid(centre, radii, turn=(0, 0, 0)) -> Shape:
    """An ellipsoid, turned by Euler angles (degrees about x, y, z). Its distance is exact on the surface, approximate away from it."""
    turned = any(turn)
    m = Rotation.from_euler("xyz", turn, degrees=True).inv().as_matrix().astype(np.float32)
    reach = np.sqrt(((m.T * np.asarray(radii)) ** 2).sum(1)) + 3
    c = [np.float32(v) for v in centre]
    s = [np.float32(1 / r) for r in radii]

    def distance(at: Points) -> np.ndarray:
        p = [at.x - c[0], at.y - c[1], at.z - c[2]]
        if turned:
            p = [row[0] * p[0] + row[1] * p[1] + row[2] * p[2] for row in m]
        p = [v * k for v, k in zip(p, s)]
        inside = p[0] * p[0] + p[1] * p[1] + p[2] * p[2] - 1
        for v, k in zip(p, s):
            v *= k
            v *= v
        return inside / (2 * np.sqrt(p[0] + p[1] + p[2]) + np.float32(1e-6))

    return Shape(distance, tuple(np.subtract(centre, reach)), tuple(np.add(centre, reach)))


def capsule(start, end, radius_start, radius_end, flat=1.0) -> Shape:
    """A straight tube with round ends whose radius goes from one value to another; flat < 1 squeezes it front to back."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    squeeze = np.array([1, 1 / flat, 1])
    along = (b - a) * squeeze
    unit = (along / max(along @ along, 1e-6)).astype(np.float32)
    a32, along32 = a.astype(np.float32), along.astype(np.float32)
    r0, slope, k = np.float32(radius_start), np.float32(radius_end - radius_start), np.float32(1 / flat)

    def distance(at: Points) -> np.ndarray:
        px, py, pz = at.x - a32[0], (at.y - a32[1]) * k, at.z - a32[2]
        t = np.clip(px * unit[0] + py * unit[1] + pz * unit[2], 0, 1)
        px, py, pz = px - t * along32[0], py - t * along32[1], pz - t * along32[2]
        return np.sqrt(px * px + py * py + pz * pz) - (r0 + t * slope)

    reach = max(radius_start, radius_end) + 3
    return Shape(distance, tuple(np.minimum(a, b) - reach), tuple(np.maximum(a, b) + reach))


def tube(points, radii, step=9.0, flat=1.0) -> list[Shape]:
    """A smooth tube through points (n, 3) with a radius at each (or one for all), as a chain of capsules about `step` mm long."""
    points = np.asarray(points, np.float64)
    radii = np.broadcast_to(np.asarray(radii, np.float64), len(points))
    length = np.r_[0, np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))]
    t = np.linspace(0, length[-1], max(2, int(length[-1] / step) + 1))
    p, r = PchipInterpolator(length, points)(t), np.interp(t, length, radii)
    return [capsule(p[i], p[i + 1], r[i], r[i + 1], flat) for i in range(len(t) - 1)]


def tree(rng: np.random.Generator, start, towards, length, radius, depth, spread=0.6) -> list[Shape]:
    """A branching vessel: each branch is a tube that bends a little and ends in two thinner ones (Murray's law: r/2^(1/3))."""
    direction = np.asarray(towards, np.float64) / np.linalg.norm(towards)
    bend = direction + rng.normal(0, 0.2, 3)
    middle = np.asarray(start) + direction * length / 2
    end = middle + bend / np.linalg.norm(bend) * length / 2
    branch = [capsule(start, middle, radius, 0.92 * radius), capsule(middle, end, 0.92 * radius, 0.85 * radius)]
    if depth:
        side = np.cross(direction, rng.normal(size=3))
        side *= spread / np.linalg.norm(side)
        for sign in (-1, 1):
            fork = direction + sign * side * rng.uniform(0.6, 1.4)
            branch += tree(rng, end, fork, length * rng.uniform(0.7, 0.9), radius * 0.76, depth - 1, spread)
    return branch


def union(shapes: list[Shape]) -> Shape:
    """Many small shapes as one, evaluated once a slice and each only in its own box; further away it is merely "far"."""

    def distance(at: Points) -> np.ndarray:
        d = np.full(at.x.shape, 99, np.float32)
        for shape in shapes:
            window = at.window(shape)
            if window is not None:
                np.minimum(d[window], shape.distance(at.crop(window)), out=d[window])
        return d

    return shared(Shape(distance, tuple(np.min([s.low for s in shapes], 0)), tuple(np.max([s.high for s in shapes], 0))))


def blend(shapes: list[Shape], width: float) -> Shape:
    """Union whose seams are rounded over `width` mm (a polynomial smooth minimum)."""

    def distance(at: Points) -> np.ndarray:
        d = shapes[0].distance(at)
        for shape in shapes[1:]:
            e = shape.distance(at)
            h = np.maximum(width - np.abs(d - e), 0)
            d = np.minimum(d, e) - h * h * np.float32(0.25 / width)
        return d

    return Shape(distance, tuple(np.min([s.low for s in shapes], 0)), tuple(np.max([s.high for s in shapes], 0)))


def cut(shape: Shape, *by: Shape, width: float = 0.0) -> Shape:
    """What of a shape lies inside all the others, with edges rounded over `width` mm."""

    def distance(at: Points) -> np.ndarray:
        d = shape.distance(at)
        for other in by:
            e = other.distance(at)
            if width:
                h = np.maximum(width - np.abs(d - e), 0)
                d = np.maximum(d, e) + h * h * np.float32(0.25 / width)
            else:
                d = np.maximum(d, e)
        return d

    low, high = np.max([s.low for s in (shape, *by)], 0), np.min([s.high for s in (shape, *by)], 0)
    return Shape(distance, tuple(low), tuple(high))


def shared(shape: Shape) -> Shape:
    """The same shape, evaluated once a slice however often it is used."""
    return shape._replace(distance=lambda at: at.once(shape.distance))


def inset(shape: Shape, mm: float) -> Shape:
    """The shape, smaller by some millimetres all around (larger where negative)."""
    grow = max(0.0, -mm)
    box = tuple(v - grow for v in shape.low), tuple(v + grow for v in shape.high)
    return Shape(lambda at: shape.distance(at) + np.float32(mm), *box)


def outside(shape: Shape) -> Shape:
    """Everything that the shape leaves."""
    return Shape(lambda at: -shape.distance(at))
