"""The patient's trunk: its wall and cavity, the ribs, the dome of the diaphragm.

Millimetres, x to the right, y to the front, z to the head; z = 0 is the twelfth thoracic vertebra, y = 0 the middle
of the trunk.
"""

from typing import NamedTuple

import numpy as np

from .points import Points
from .shapes import Shape, Vector, blend, cut, dome, ellipsoid, half_space, shared, union

# z, half width, half depth, y of the centre (mm)
# fmt: off
WALL = np.array([
    (-430, 166, 86, -10), (-330, 168, 94, -10), (-285, 166, 98, -10), (-220, 155, 98, -8), (-150, 142, 93, -6),
    (-90, 139, 95, -5), (-30, 146, 101, -4), (40, 151, 105, -3), (110, 151, 106, -3), (200, 150, 102, -3),
    (260, 152, 92, -6), (300, 150, 74, -10), (330, 112, 60, -12), (352, 66, 54, -10), (480, 58, 58, -5),
])
CAVITY = np.array([
    (-430, 4, 4, 0), (-345, 14, 24, -8), (-325, 20, 32, -5), (-300, 42, 50, 0), (-275, 62, 62, 0), (-220, 96, 72, 8),
    (-150, 117, 76, 14), (-90, 122, 79, 14), (-30, 129, 84, 7), (40, 134, 87, 2), (110, 131, 88, 1), (200, 121, 80, 1),
    (260, 101, 65, -6), (300, 74, 48, -15), (328, 40, 26, -20), (345, 5, 5, -20), (480, 4, 4, -20),
])
# fmt: on
# height of a rib's head -> angle (radians from the back) of its bone's end: the lowest ribs are the shortest
RIB_END = np.array([(0, 0.8), (30, 1.1), (60, 1.75), (90, 2.0), (145, 2.4), (300, 2.7)])
RIB_PITCH, RIB_SLOPE, LOWEST_RIB, HIGHEST_RIB = 27.0, 56.0, 12.0, 12.0 + 11 * 27.0


def outline(table: np.ndarray) -> Shape:
    """A trunk; its cross-sections are superellipses |x/a|^2.25 + |y/b|^2.25 = 1; a, b, centre from a table along z."""

    def along(at: Points, column: int) -> np.ndarray:
        z0 = float(at.z.mean())  # a slice is nearly flat: one slope, no interpolation per pixel
        low, high = np.interp([z0 - 5, z0 + 5], table[:, 0], table[:, column])
        return (at.z - np.float32(z0)) * np.float32((high - low) / 10) + np.float32((low + high) / 2)

    def distance(at: Points) -> np.ndarray:
        x, y = at.x, at.y - along(at, 3)
        u, v = np.abs(x / along(at, 1)), np.abs(y / along(at, 2))
        q = u * u * np.sqrt(np.sqrt(u)) + v * v * np.sqrt(np.sqrt(v)) + np.float32(1e-6)
        np.power(q, np.float32(1 / 2.25), out=q)
        return (1 - 1 / q) * np.sqrt(x * x + y * y + 1)  # along the ray from the centre

    z, a, b, y = table.T
    return Shape(distance, (-a.max(), (y - b).min(), -1e4), (a.max(), (y + b).max(), 1e4))


def ribs(cavity: Shape, half_thickness: float, half_height: float, cartilage: bool = False) -> Shape:
    """All ribs (or their cartilages): bands along the cavity that descend from the spine to the front.

    In the coordinates (angle, height + slope * angle) ribs are horizontal and periodic: one distance is enough for all.
    """

    def distance(at: Points) -> np.ndarray:
        angle = np.arctan2(np.abs(at.x), np.float32(2) - at.y)
        radial = at.once(cavity.distance) - np.float32(6)
        descent = RIB_SLOPE * angle
        if cartilage:  # the cartilages rise to the sternum; all have one nominal end
            descent = descent - 135 * np.maximum(angle - np.float32(2.15), 0)
        height = at.z + descent.astype(np.float32)
        number = np.clip(np.round((height - LOWEST_RIB) / RIB_PITCH), 0, 11)
        head = LOWEST_RIB + RIB_PITCH * number
        end = np.interp(head, RIB_END[:, 0], RIB_END[:, 1]).astype(np.float32)
        off = (height - head) * np.float32(0.9)  # a slanted band is thinner
        d = (np.hypot(radial / half_thickness, off / half_height) - 1) * half_thickness
        if cartilage:
            cut = np.maximum(end - angle, angle - np.float32(2.95)) * 70 + np.where(head < 60, 99, 0)
        else:
            cut = np.maximum(angle - end, np.float32(0.42) - angle) * 70
        return np.maximum(d, cut).astype(np.float32)

    low = LOWEST_RIB - RIB_SLOPE * 2.7 - 15
    return Shape(distance, (-150, -115, low), (150, 110, HIGHEST_RIB + 10))


class Organ(NamedTuple):
    """A tissue (a key of TISSUES), the shapes it fills, and their label."""

    tissue: str
    shapes: list[Shape]
    label: int = 0


class Body:
    """One patient's trunk.

    Attributes:
        rng: source of individual variation.
        fat: thickness of the subcutaneous fat, mm.
        wall: outer surface of the muscles.
        cavity: inside of ribs, abdominal wall and pelvis.
        below: the part of the cavity below the diaphragm.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 2])
        self.fat = self.rng.uniform(6, 22)
        self.wall = union([outline(WALL)], margin=60)  # fat reaches far around it
        self.cavity = shared(cut(outline(CAVITY), half_space("z", 1, -335), half_space("z", -1, 340)))
        right, left = dome((72, 15, -40), (86, 93, 140)), dome((-72, 15, -45), (84, 92, 128))
        heart, back = dome((0, 25, -40), (62, 76, 126)), dome((0, -62, -60), (62, 46, 72))
        self.below = shared(cut(blend([right, left, heart, back], 22), self.cavity))

    def skin(self, mm: float) -> Shape:
        """The wall with subcutaneous fat, thicker at the back and the hips, and `mm` more."""

        def distance(at: Points) -> np.ndarray:
            here = self.fat * float(np.interp(at.z.mean(), [-300, -100, 60, 250, 340], [1.4, 1.25, 0.9, 0.75, 0.5]))
            return self.wall.distance(at) - np.float32(mm) - np.float32(here) * (1 - np.float32(0.003) * at.y)

        return Shape(distance)

    def ball(self, centre: Vector, radii: Vector, turn: Vector = (0, 0, 0)) -> Shape:
        """An ellipsoid that varies a little between patients."""
        centre = np.asarray(centre) + self.rng.normal(0, 1.8, 3)
        return ellipsoid(centre, np.asarray(radii) * (1 + np.clip(self.rng.normal(0, 0.035, 3), -0.08, 0.08)), turn)
