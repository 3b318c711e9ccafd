"""The frame: couch, skin, fat, muscles and bones."""

import numpy as np
from numpy.typing import ArrayLike

from .body import Body, Organ, ribs
from .points import Points
from .shapes import Shape, cut, ellipsoid, half_space, inset, outside, shared, tube

SIDES = 1, -1  # right, left


def pair(points: ArrayLike, radii: ArrayLike, flat: float = 1.0) -> list[Shape]:
    """A tube and its mirror image."""
    return [capsule for side in SIDES for capsule in tube(np.multiply(points, (side, 1, 1)), radii, flat=flat)]


def trunk(body: Body) -> list[Organ]:
    """Couch, skin, subcutaneous fat, wall and cavity; the thighs below."""
    couch = couch_top(-122 - body.fat)
    # fmt: off
    return [
        Organ("couch shell", [couch]),
        Organ("couch foam", [inset(couch, 2)]),
        Organ("skin", [body.skin(2)]),
        Organ("fat", [body.skin(0)]),
        Organ("muscle", [body.wall]),
        Organ("visceral fat", [body.cavity]),
        Organ("fat", [fascia(body, -430, -165), fascia(body, 215, 480)]),
        Organ("fat", [cut(ellipsoid((0, -10, -445), (24, 160, 88)), body.skin(0))]),  # between the thighs
        Organ("skin", [cut(ellipsoid((0, 0, -455), (10, 200, 84)), body.skin(2))]),
        Organ("air", [ellipsoid((0, 0, -455), (8, 200, 82))]),
    ]
    # fmt: on


def couch_top(back: float) -> Shape:
    """A shallow trough, 14 mm thick, 7 mm behind the patient's back."""

    def distance(at: Points) -> np.ndarray:
        middle = np.float32(back - 14) + at.x * at.x * np.float32(1 / 900)
        return np.maximum(np.abs(at.y - middle) - 7, np.abs(at.x) - 215)

    return Shape(distance, (-220, back - 60, -1e4), (220, back + 80, 1e4))


def fascia(body: Body, low: float, high: float) -> Shape:
    """Fat between the muscles from `low` to `high`: sheets where a smooth random field is zero."""
    sheets = Shape(lambda at: np.abs(at.texture("sheets")) * 10 - 0.9, (-1e4, -1e4, low), (1e4, 1e4, high))
    return cut(sheets, inset(body.wall, 3), outside(body.cavity))


def muscles(body: Body) -> list[Organ]:
    """The long muscles, and the fat between the layers of the wall."""
    plane = Shape(
        lambda at: np.abs(body.wall.distance(at) + 6.5) - 0.7 + 0.5 * at.texture("coarse"), high=(1e4, 40, 1e4)
    )
    paraspinal = [(24, -80, 300), (26, -88, 100), (31, -84, -60), (30, -84, -150), (20, -92, -230)]
    psoas = [(27, -42, 0), (33, -42, -60), (42, -34, -130), (62, 2, -225), (84, 18, -295), (86, -5, -340)]
    return [
        Organ("fat", [plane]),
        Organ("muscle", pair(paraspinal, [20, 23, 29, 28, 13], flat=0.75)),
        Organ("muscle", pair(psoas, [7, 13, 22, 20, 17, 10])),
        Organ("muscle", pair([(62, -64, -20), (70, -62, -130)], [12, 20])),  # quadratus lumborum
        Organ("muscle", pair([(17, -38, 60), (15, -30, 10), (14, -28, -40)], [4, 6, 4])),  # crura of the diaphragm
        Organ("muscle", tube([(0, -20, -300), (0, -38, -345)], [13, 15])),  # pelvic floor
    ]


def skeleton(body: Body) -> list[Organ]:
    """Spine, ribs, sternum, shoulders."""
    levels = [(8.0 + 27 * n, 15.5 - 0.35 * n, False) for n in range(12)]  # T12 up to T1: z, radius, lumbar
    levels += [(8.0 - 36 * n, 16.5 + 0.9 * n, True) for n in range(1, 6)]  # L1 down to L5
    cortical, trabecular, discs = [], [], []
    for z, r, lumbar in levels:
        y, half = (-46, 14.2) if lumbar else (-52, 11.6)
        back, wing, tip = y - r, 12 if lumbar else 18, 14 if lumbar else 24
        column = ellipsoid((0, y, z), (1.38 * r, 1.02 * r, 3.0 * half))
        vertebra, core = (
            cut(column, half_space("z", 1, z - h), half_space("z", -1, z + h)) for h in (half, half - 0.8)
        )
        arch = [
            *tube([(-12, back - 6, z), (0, back - 19, z - 6), (12, back - 6, z)], 4.2, step=6),  # laminae
            *tube([(0, back - 19, z - 6), (0, back - 40, z - tip)], [3.6, 3.0]),  # spinous process
            *pair([(13, back - 8, z), (36, back - wing, z + 2)], [4.5, 3.4]),  # transverse processes
            *pair([(13, y - 8, z + 2), (13, back - 8, z + 1)], 4.5),  # pedicles
        ]
        cortical += [vertebra, *arch]
        trabecular += [cut(core, inset(column, 1.6)), *[inset(a, 2.2) for a in arch]]
        discs.append(ellipsoid((0, y, z - half - 4), (1.42 * r, 1.05 * r, 8 if lumbar else 5)))
    canal = tube([(0, -74, 330), (0, -75, 60), (0, -72, -30), (0, -73, -170), (0, -84, -220)], [8.5, 8.5, 9.5, 9, 6])
    cage = shared(ribs(body.cavity, 3.6, 6.5))
    front = tube([(0, 84, 105), (0, 87, 130), (0, 84, 200), (0, 74, 262)], [4, 9, 9, 13], flat=0.5)  # sternum
    front += pair([(16, 58, 282), (60, 46, 296), (118, 6, 318)], [8, 6, 7])  # clavicles
    for s in SIDES:  # scapula, head of the humerus
        front += [
            ellipsoid((s * 86, -66, 232), (44, 5, 62), (8, 0, s * 28)),
            ellipsoid((s * 132, -10, 296), (22, 24, 24)),
        ]
    return [
        Organ("disc", discs),
        Organ("cortical bone", cortical),
        Organ("trabecular bone", trabecular),
        Organ("spinal canal", canal),
        Organ("cartilage", [ribs(body.cavity, 3.4, 6.5, cartilage=True)]),
        Organ("cortical bone", [cage, *front]),
        Organ("trabecular bone", [inset(cage, 1.6), *[inset(shape, 2.0) for shape in front]]),
    ]


def pelvis(body: Body) -> list[Organ]:
    """Hips, sacrum, femora; bladder, rectum, uterus or prostate."""
    sacrum = cut(ellipsoid((0, -66, -215), (54, 26, 62), (-28, 0, 0)), outside(ellipsoid((0, -20, -275), (60, 50, 60))))
    bones = [(sacrum, 2.5)]  # and the thickness of the cortex
    for s in SIDES:
        shell, hollow = (
            ellipsoid((s * 60, 20, -165), (88, 96, 120), (0, 0, s * 25)),
            ellipsoid((s * 56, 24, -160), (82, 92, 116), (0, 0, s * 25)),
        )
        ends = [
            half_space(*end)
            for end in (("z", -1, -132), ("z", 1, -268), ("y", 1, -78), ("y", -1, 32), ("x", s, s * 34))
        ]
        socket = cut(
            ellipsoid((s * 84, -6, -283), (34, 34, 34)),
            outside(ellipsoid((s * 93, -8, -287), (29, 29, 29))),
            half_space("x", -s, s * 108),
        )
        bones += [
            (cut(shell, outside(hollow), *ends, inset(body.wall, 13)), 2),
            (socket, 2),
            (ellipsoid((s * 93, -8, -287), (24, 24, 24)), 3),
        ]
    # fmt: off
    bones += [(shape, 2.2) for shape in [
        *pair([(60, 8, -290), (38, 34, -305), (9, 42, -315)], [9, 7, 9]),  # pubis
        *pair([(72, -36, -290), (60, -48, -335)], [13, 15]),  # ischium
        *pair([(58, -42, -340), (35, 5, -342), (10, 36, -322)], [9, 6, 6]),  # its ramus
        *pair([(70, -50, -235), (76, -25, -270)], [12, 16]),  # body of the ilium
        *tube([(0, -78, -265), (0, -62, -300)], [9, 5]),  # coccyx
    ]]
    bones += [(shape, 3) for shape in [
        *pair([(95, -8, -290), (128, -16, -318), (128, -14, -345)], [14, 15, 16]),  # neck of the femur
        *pair([(130, -16, -310), (127, -10, -350), (118, 0, -440)], [15, 17, 13]),  # its shaft
    ]]
    # fmt: on
    return [
        Organ("cortical bone", [bone for bone, _ in bones]),
        Organ("trabecular bone", [inset(bone, cortex) for bone, cortex in bones]),
        Organ("spinal canal", tube([(0, -73, -170), (0, -84, -220), (0, -92, -250)], [9, 7, 3])),
        Organ("bowel wall", tube([(0, -55, -225), (4, -52, -270), (0, -40, -320)], [16, 19, 13])),
        Organ("stool", tube([(0, -55, -225), (4, -52, -265)], [12, 14])),
        Organ("uterus or prostate", [body.ball((3, -8, -285), (27, 22, 24))]),
        Organ("muscle", [bladder := body.ball((0, 32, -268), (44, 32, 34))]),
        Organ("bladder", [inset(bladder, 4)]),
    ]
