"""The body's outline, its cavity and the ribs around it: shapes that follow tables along z rather than a centre and radii."""

from __future__ import annotations

import numpy as np

from .shapes import EVERYWHERE, Points, Shape

# z, half width, half depth, y of the centre (mm). z = 0 is the twelfth thoracic vertebra, y = 0 the middle of the trunk.
WALL = np.array([
    (-430, 166, 86, -10), (-330, 168, 94, -10), (-285, 166, 98, -10), (-220, 155, 98, -8), (-150, 142, 93, -6), (-90, 139, 95, -5),
    (-30, 146, 101, -4), (40, 151, 105, -3), (110, 151, 106, -3), (200, 150, 102, -3), (260, 152, 92, -6), (300, 150, 74, -10),
    (330, 112, 60, -12), (352, 66, 54, -10), (480, 58, 58, -5),
])  # fmt: skip
CAVITY = np.array([
    (-430, 4, 4, 0), (-345, 5, 5, 0), (-325, 40, 45, 0), (-285, 60, 62, 0), (-220, 96, 72, 8), (-150, 117, 76, 14), (-90, 122, 79, 14),
    (-30, 129, 84, 7), (40, 134, 87, 2), (110, 131, 88, 1), (200, 121, 80, 1), (260, 101, 65, -6), (300, 74, 48, -15), (328, 40, 26, -20),
    (345, 5, 5, -20), (480, 4, 4, -20),
])  # fmt: skip
# height of a rib's head -> angle (radians from the back) where its bone ends: floating ribs are short, the costal margin rises to the front
RIB_END = np.array([(0, 0.9), (30, 1.35), (60, 2.0), (90, 2.2), (145, 2.5), (300, 2.7)])
RIB_PITCH, RIB_SLOPE, LOWEST_RIB, HIGHEST_RIB = 27.0, 36.0, 8.0, 8.0 + 11 * 27.0


def outline(table: np.ndarray, power: float = 2.25) -> Shape:
    """A trunk whose cross-sections are superellipses |x/a|^p + |y/b|^p = 1 with a, b and centre from a table along z."""

    def along(at: Points, column: int) -> np.ndarray:
        z0 = float(at.z.mean())  # a slice is nearly flat: one slope replaces an interpolation per pixel
        low, high = np.interp([z0 - 5, z0 + 5], table[:, 0], table[:, column])
        return (at.z - np.float32(z0)) * np.float32((high - low) / 10) + np.float32((low + high) / 2)

    def distance(at: Points) -> np.ndarray:
        x, y = at.x, at.y - along(at, 3)
        u, v = np.abs(x / along(at, 1)), np.abs(y / along(at, 2))
        q = (u ** np.float32(power) + v ** np.float32(power) + np.float32(1e-6)) ** np.float32(1 / power)
        return (1 - 1 / q) * np.sqrt(x * x + y * y + 1)  # along the ray from the centre

    (z, a, b, y) = table.T
    return Shape(distance, (-a.max(), (y - b).min(), -1e4), (a.max(), (y + b).max(), 1e4))


def ribs(cavity: Shape, half_thickness: float, half_height: float, cartilage: bool = False) -> Shape:
    """All ribs at once (or their cartilages): bands that hug the cavity and descend from the spine to the front.

    In the coordinates (angle, height + slope * angle) ribs are horizontal and periodic, so that one distance serves for all of them.
    """

    def distance(at: Points) -> np.ndarray:
        angle = np.arctan2(np.abs(at.x), np.float32(2) - at.y)
        radial = at.once(cavity.distance) - np.float32(6)
        descent = RIB_SLOPE * angle
        if cartilage:  # the cartilages rise again to the sternum; one nominal end serves for all
            descent = descent - 75 * np.maximum(angle - np.float32(2.15), 0)
        height = at.z + descent.astype(np.float32)
        number = np.clip(np.round((height - LOWEST_RIB) / RIB_PITCH), 0, 11)
        head = LOWEST_RIB + RIB_PITCH * number
        end = np.interp(head, RIB_END[:, 0], RIB_END[:, 1]).astype(np.float32)
        off = (height - head) * np.float32(0.85)  # a slanted band is thinner across than upright
        d = (np.hypot(radial / half_thickness, off / half_height) - 1) * half_thickness
        if cartilage:
            cut = np.maximum(end - angle, angle - np.float32(2.95)) * 70 + np.where(head < 60, 99, 0)
        else:
            cut = np.maximum(angle - end, np.float32(0.42) - angle) * 70
        return np.maximum(d, cut).astype(np.float32)

    low = LOWEST_RIB - RIB_SLOPE * 2.7 - 15
    return Shape(distance, (-150, -115, low), (150, 110, HIGHEST_RIB + 10))


def half_space(axis: str, sign: int, position: float) -> Shape:
    """Where sign * coordinate > sign * position: `half_space("z", 1, -45)` is everything above z = -45."""
    low, high = [list(v) for v in EVERYWHERE]
    (low if sign > 0 else high)["xyz".index(axis)] = position
    return Shape(lambda at: np.float32(sign) * (np.float32(position) - getattr(at, axis)), tuple(low), tuple(high))
