"""Signed distances: the analytic shapes of the anatomy, and their combinations.

A shape's distance (mm) is negative inside. It is evaluated on the points of one axial slice at a time; its box lets the
renderer skip other pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator
from scipy.spatial.transform import Rotation

from .points import Distance, Points

Vector = Sequence[float] | np.ndarray

EVERYWHERE = (-1e4, -1e4, -1e4), (1e4, 1e4, 1e4)


class Shape(NamedTuple):
    """A signed distance (mm, negative inside) and the box (mm) outside which it is positive."""

    distance: Distance
    low: tuple[float, ...] = EVERYWHERE[0]
    high: tuple[float, ...] = EVERYWHERE[1]


def ellipsoid(centre: Vector, radii: Vector, turn: Vector = (0, 0, 0)) -> Shape:
    """An ellipsoid, turned by Euler angles (degrees about x, y, z); the distance is exact only at its surface."""
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


def capsule(start: Vector, end: Vector, radius_start: float, radius_end: float, flat: float = 1.0) -> Shape:
    """A straight tube with round ends and linear radius; flat < 1 squeezes it front to back."""
    a, b = np.asarray(start, np.float64), np.asarray(end, np.float64)
    squeeze = np.array([1, 1 / flat, 1])
    along = (b - a) * squeeze
    unit = (along / max(along @ along, 1e-6)).astype(np.float32)
    a32, along32 = a.astype(np.float32), along.astype(np.float32)
    r0, slope, k = np.float32(radius_start), np.float32(radius_end - radius_start), np.float32(1 / flat)

    def distance(at: Points) -> np.ndarray:
        px, py, pz = at.x - a32[0], (at.y - a32[1]) * k, at.z - a32[2]
        t = np.minimum(np.maximum(px * unit[0] + py * unit[1] + pz * unit[2], 0), 1)
        px, py, pz = px - t * along32[0], py - t * along32[1], pz - t * along32[2]
        return np.sqrt(px * px + py * py + pz * pz) - (r0 + t * slope)

    reach = max(radius_start, radius_end) + 3
    return Shape(distance, tuple(np.minimum(a, b) - reach), tuple(np.maximum(a, b) + reach))


def tube(points: ArrayLike, radii: ArrayLike, step: float = 9.0, flat: float = 1.0) -> list[Shape]:
    """A smooth tube through points (n, 3), a radius at each or one for all: a chain of capsules of about `step` mm."""
    points = np.asarray(points, np.float64)
    radii = np.broadcast_to(np.asarray(radii, np.float64), len(points))
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1) + 1e-3  # so that length rises strictly
    length = np.r_[0, np.cumsum(steps)]
    t = np.linspace(0, length[-1], max(2, int(length[-1] / step) + 1))
    p, r = PchipInterpolator(length, points)(t), np.interp(t, length, radii)
    return [capsule(p[i], p[i + 1], r[i], r[i + 1], flat) for i in range(len(t) - 1)]


def tree(
    rng: np.random.Generator,
    start: Vector,
    towards: Vector,
    length: float,
    radius: float,
    depth: int,
    spread: float = 0.6,
) -> list[Shape]:
    """A branching vessel: each branch bends a little and ends in two thinner ones (near Murray's law, r / 2^(1/3))."""
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


def union(shapes: list[Shape], margin: float = 12.0) -> Shape:
    """Union of shapes, evaluated once a slice, each up to `margin` mm around its box; beyond that it is just far."""
    low, high = (np.array([getattr(s, end) for s in shapes]) for end in ("low", "high"))

    def distance(at: Points) -> np.ndarray:
        d = np.full(at.x.shape, 99, np.float32)
        for n, window in at.windows(low - margin, high + margin):
            np.minimum(d[window], shapes[n].distance(at.crop(window)), out=d[window])
        return d

    return Shape(lambda at: at.once(distance), tuple(low.min(0)), tuple(high.max(0)))


def shared(shape: Shape) -> Shape:
    """The same shape, evaluated only once a slice."""
    return union([shape])


def blend(shapes: list[Shape], width: float) -> Shape:
    """Union with seams rounded over `width` mm (a polynomial smooth minimum)."""

    def distance(at: Points) -> np.ndarray:
        d = shapes[0].distance(at)
        for shape in shapes[1:]:
            e = shape.distance(at)
            h = np.maximum(width - np.abs(d - e), 0)
            d = np.minimum(d, e) - h * h * np.float32(0.25 / width)
        return d

    return Shape(distance, tuple(np.min([s.low for s in shapes], 0)), tuple(np.max([s.high for s in shapes], 0)))


def cut(shape: Shape, *by: Shape, width: float = 0.0) -> Shape:
    """The part of a shape inside all the others, with edges rounded over `width` mm."""

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


def inset(shape: Shape, mm: float) -> Shape:
    """The shape, smaller by `mm` all around (larger if negative)."""
    grow = max(0.0, -mm)
    low, high = (tuple(v + by for v in corner) for corner, by in ((shape.low, -grow), (shape.high, grow)))
    return Shape(lambda at: shape.distance(at) + np.float32(mm), low, high)


def outside(shape: Shape) -> Shape:
    """Everything outside the shape."""
    return Shape(lambda at: -shape.distance(at))


def half_space(axis: str, sign: int, position: float) -> Shape:
    """The region sign * coordinate > sign * position: `half_space("z", 1, -45)` is everything above z = -45."""
    low, high = [list(v) for v in EVERYWHERE]
    (low if sign > 0 else high)["xyz".index(axis)] = position
    return Shape(lambda at: np.float32(sign) * (np.float32(position) - getattr(at, axis)), tuple(low), tuple(high))


def dome(centre: Vector, radii: Vector) -> Shape:
    """The upper half of an ellipsoid on a straight column."""
    half = ellipsoid(centre, radii)
    return Shape(lambda at: half.distance(at.raised(centre[2])), (half.low[0], half.low[1], -1e4), half.high)
