"""The organs of one patient, as a list to be painted in order: later ones cover earlier ones.

Millimetres, x to the right, y to the front, z to the head; z = 0 is the twelfth thoracic vertebra.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .shapes import Points, Shape, blend, cut, ellipsoid, inset, outside, shared, tree, tube, union
from .torso import CAVITY, WALL, half_space, outline, ribs

LIVER, TUMOUR = 1, 2
LIVER_EXTENT = -125.0, 112.0  # z of the patient's frame within which every liver lies


class Organ(NamedTuple):
    """A tissue (a key of TISSUES), the shapes it fills, and the label that their inside gets."""

    tissue: str
    shapes: list[Shape]
    label: int = 0


class Patient:
    """Draws a patient's individual anatomy from a seed; `organs()` lists it."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 2])
        self.fat = self.rng.uniform(6, 22)
        self.count = int(self.rng.integers(1, 7))
        self.wall, self.cavity = shared(outline(WALL)), shared(outline(CAVITY))

    def ball(self, centre, radii, turn=(0, 0, 0), vary=1.0) -> Shape:
        """An ellipsoid that differs a little from patient to patient."""
        centre = np.asarray(centre) + vary * self.rng.normal(0, 1.8, 3)
        radii = np.asarray(radii) * (1 + vary * np.clip(self.rng.normal(0, 0.035, 3), -0.08, 0.08))
        return ellipsoid(centre, radii, turn)

    def organs(self) -> list[Organ]:
        return [*self.trunk(), *self.thorax(), *self.muscles(), *self.skeleton(), *self.heart(), *self.pelvis(), *self.retroperitoneum(), *self.bowel(), *self.upper_abdomen()]

    def trunk(self) -> list[Organ]:
        """Couch, skin, subcutaneous fat, muscle wall, cavity and the long muscles."""
        back = -122 - self.fat
        both = (-1, 1)
        return [
            Organ("couch shell", [couch := half_couch(back)]),
            Organ("couch foam", [inset(couch, 2)]),
            Organ("skin", [inset(self.wall, -self.fat - 2)]),
            Organ("fat", [inset(self.wall, -self.fat)]),
            Organ("muscle", [self.wall]),
            Organ("visceral fat", [self.cavity]),
            Organ("air", [ellipsoid((0, 0, -450), (9, 160, 75))]),  # between the thighs
            Organ("fat", [ellipsoid((0, -20, -440), (26, 140, 80)), *[s for x in both for s in tube([(x * 38, -105, 260), (x * 42, -108, 60), (x * 44, -103, -60)], 3.0)]]),
            Organ("air", [ellipsoid((0, 0, -450), (7, 160, 70))]),
        ]

    def muscles(self) -> list[Organ]:
        """Paraspinal, psoas, quadratus lumborum, and the fat plane between the layers of the wall."""
        both = (-1, 1)
        plane = Shape(lambda at: np.abs(self.wall.distance(at) + 6.5) - 0.7 + 0.5 * at.grain["coarse"], self.wall.low, (1e4, 40, 1e4))
        return [
            Organ("fat", [plane]),
            Organ("muscle", [s for x in both for s in tube([(x * 30, -84, 300), (x * 30, -90, 100), (x * 34, -84, -60), (x * 32, -84, -150), (x * 22, -92, -230)], [18, 19, 25, 25, 12])]),
            Organ("muscle", [s for x in both for s in tube([(x * 27, -42, 0), (x * 33, -42, -60), (x * 42, -34, -130), (x * 62, 2, -225), (x * 84, 18, -295), (x * 86, -5, -340)], [7, 13, 22, 20, 17, 10])]),
            Organ("muscle", [s for x in both for s in tube([(x * 62, -64, -20), (x * 70, -62, -130)], [12, 20])]),
            Organ("muscle", [s for x in both for s in tube([(x * 20 - 4, -38, 60), (x * 17 - 3, -30, 10), (x * 14, -28, -40)], [4, 6, 4])]),
        ]

    def skeleton(self) -> list[Organ]:
        levels = [(8.0 + 27 * n, 15.5 - 0.35 * n, n < 0) for n in range(12)]  # T12 up to T1
        levels += [(8.0 - 36 * n, 16.5 + 0.9 * n, True) for n in range(1, 6)]  # L1 down to L5
        cortical, trabecular, disc = [], [], []
        for z, r, lumbar in levels:
            y, half = (-46, 13.5) if lumbar else (-52, 10.8)
            body = cut(ellipsoid((0, y, z), (1.38 * r, 1.02 * r, 3.0 * half)), half_space("z", 1, z - half), half_space("z", -1, z + half))
            back = y - r
            arch = [
                *tube([(-12, back - 6, z), (0, back - 19, z - 6), (12, back - 6, z)], 4.2, step=6),
                *tube([(0, back - 19, z - 6), (0, back - 40, z - (14 if lumbar else 24))], [3.6, 3.0], flat=1),
                *tube([(-13, back - 8, z), (-36, back - (12 if lumbar else 18), z + 2)], [4.5, 3.4]),
                *tube([(13, back - 8, z), (36, back - (12 if lumbar else 18), z + 2)], [4.5, 3.4]),
                *tube([(-13, y - 8, z + 2), (-13, back - 8, z + 1)], 4.5), *tube([(13, y - 8, z + 2), (13, back - 8, z + 1)], 4.5),
            ]  # fmt: skip
            cortical += [body, *arch]
            trabecular += [inset(body, 1.6), *[inset(a, 2.2) for a in arch]]
            disc.append(ellipsoid((0, y, z - half - 4), (1.42 * r, 1.05 * r, 9 if lumbar else 6)))
        cord = tube([(0, -74, 330), (0, -75, 60), (0, -72, -30), (0, -73, -170), (0, -84, -220)], [8.5, 8.5, 9.5, 9, 6])
        sternum = tube([(0, 84, 105), (0, 87, 130), (0, 84, 200), (0, 74, 262)], [4, 9, 9, 13], flat=0.5)
        return [
            Organ("disc", disc),
            Organ("cortical bone", cortical),
            Organ("trabecular bone", trabecular),
            Organ("spinal canal", cord),
            Organ("cartilage", [ribs(self.cavity, 3.4, 6.5, cartilage=True)]),
            Organ("cortical bone", [ribs(self.cavity, 3.6, 6.5), *sternum]),
            Organ("trabecular bone", [inset(ribs(self.cavity, 3.6, 6.5), 1.6), *[inset(s, 1.8) for s in sternum]]),
        ]

    def thorax(self) -> list[Organ]:
        rng = self.rng
        right, left = (72, 15, -40), (-72, 15, -45)
        dome = blend([self.cap(right, (86, 93, 140)), self.cap(left, (84, 92, 128)), self.cap((0, 25, -40), (60, 70, 122))], 22)
        self.below = shared(cut(dome, self.cavity))
        lung = cut(inset(self.cavity, 2.5), half_space("z", 1, -45))
        vessels = []
        for side in (-1, 1):
            hilum = np.array([side * 32, -8, 190])
            for towards in [(side, 0.3, 0.9), (side, -0.4, 0.1), (side, 0.7, -0.3), (side * 0.7, -0.8, -1), (side * 0.5, 0.2, -1), (side, 0.1, -0.7)]:
                vessels += tree(rng, hilum, towards, 40, 6.5, 4)
        vessels = [cut(v, lung, outside(self.below)) for v in vessels]
        return [
            Organ("lung", [lung]),
            Organ("lung vessel", vessels),
            Organ("visceral fat", [cut(ellipsoid((0, 0, 215), (30, 92, 130)), self.cavity)]),
            Organ("muscle", [self.below]),
            Organ("visceral fat", [inset(self.below, 2.5)]),
        ]

    def heart(self) -> list[Organ]:
        """Heart, great vessels, oesophagus, airways."""
        heart = blend([self.ball((-28, 32, 128), (58, 46, 46), (0, 28, 25)), self.ball((18, 22, 140), (36, 42, 48))], 20)
        chambers = [
            ellipsoid((-52, 28, 120), (27, 21, 33), (0, 30, 25)), ellipsoid((-10, 52, 116), (38, 17, 27), (0, 25, 20)),
            ellipsoid((32, 26, 134), (19, 25, 32)), ellipsoid((-4, -4, 152), (32, 17, 22)),
        ]  # fmt: skip
        arch = [(-20, -36, 90), (-22, -40, 160), (-22, -34, 235), (-10, -5, 262), (12, 25, 245), (6, 25, 200), (-8, 20, 165)]
        return [
            Organ("visceral fat", [cut(inset(heart, -5), inset(self.cavity, 2), outside(self.below))]),
            Organ("myocardium", [cut(heart, inset(self.cavity, 4), outside(inset(self.below, -1)))]),
            Organ("heart blood", [cut(c, inset(heart, 4), outside(inset(self.below, -4))) for c in chambers]),
            Organ("heart blood", [*tube([(-6, 35, 170), (-12, 22, 200), (-30, 0, 205)], 13), *tube([(-12, 20, 205), (34, -2, 198)], 11)]),
            Organ("vena cava", tube([(30, 15, 150), (28, 12, 250), (34, 20, 285)], 9)),
            Organ("aorta", tube(arch, [11.5, 12, 12.5, 13.5, 15, 15, 15])),
            Organ("aorta", [*tube([(-6, 0, 262), (12, 10, 300), (22, 0, 340)], 6), *tube([(-16, -12, 262), (-26, -5, 300), (-24, 0, 340)], 4.5)]),
            Organ("bowel wall", tube([(-2, -28, 330), (-2, -26, 200), (-14, -16, 100), (-24, -4, 78)], [7, 7, 8, 8])),
            Organ("cartilage", tube([(0, -6, 345), (0, -12, 225)], 10.5)),
            Organ("airway", [*tube([(0, -6, 480), (0, -6, 345), (0, -12, 225)], 8.5), *tube([(0, -12, 228), (26, -12, 205)], 6.5), *tube([(0, -12, 228), (-30, -12, 200)], 6)]),
        ]  # fmt: skip

    @staticmethod
    def cap(centre, radii) -> Shape:
        """A dome: the upper half of an ellipsoid on a straight column."""
        half = ellipsoid(centre, radii)

        def distance(at):
            raised = at.crop((slice(None), slice(None)))
            raised.z = np.maximum(at.z, np.float32(centre[2]))
            return half.distance(raised)

        return half._replace(distance=distance, low=(half.low[0], half.low[1], -1e4))

    def pelvis(self) -> list[Organ]:
        bone, marrow = [], []
        for s in (-1, 1):
            wing = cut(ellipsoid((s * 60, 20, -165), (88, 96, 120), (0, 0, s * 25)), outside(ellipsoid((s * 56, 24, -160), (82, 92, 116), (0, 0, s * 25))),
                       half_space("z", -1, -132), half_space("z", 1, -268), half_space("y", 1, -78), half_space("y", -1, 40), half_space("x", s, s * 34))
            socket = cut(ellipsoid((s * 84, -6, -283), (34, 34, 34)), outside(ellipsoid((s * 93, -8, -287), (29, 29, 29))), half_space("x", -s, s * 108))
            rods = [
                *tube([(s * 60, 8, -290), (s * 38, 34, -305), (s * 9, 42, -315)], [9, 7, 9]), *tube([(s * 72, -36, -290), (s * 60, -48, -335)], [13, 15]),
                *tube([(s * 58, -42, -340), (s * 35, 5, -342), (s * 10, 36, -322)], [9, 6, 6]), *tube([(s * 70, -50, -235), (s * 76, -25, -270)], [12, 16]),
            ]  # fmt: skip
            femur = [ellipsoid((s * 93, -8, -287), (24, 24, 24)), *tube([(s * 95, -8, -290), (s * 128, -16, -318), (s * 128, -14, -345)], [14, 15, 16]),
                     *tube([(s * 130, -16, -310), (s * 127, -10, -350), (s * 118, 0, -440)], [15, 17, 13])]
            bone += [wing, socket, *rods, *femur]
            marrow += [inset(wing, 2), inset(socket, 2), *[inset(r, 2.2) for r in rods], *[inset(f, 3) for f in femur]]
        sacrum = cut(ellipsoid((0, -66, -215), (54, 26, 62), (-28, 0, 0)), outside(ellipsoid((0, -20, -275), (60, 50, 60))))
        return [
            Organ("fat", [s for x in (-1, 1) for s in tube([(x * 70, -80, -190), (x * 75, -78, -330)], [5, 6])]),
            Organ("cortical bone", [sacrum, *tube([(0, -78, -265), (0, -62, -300)], [9, 5])] + bone),
            Organ("trabecular bone", [inset(sacrum, 2.5)] + marrow),
            Organ("spinal canal", tube([(0, -73, -170), (0, -84, -220), (0, -92, -250)], [9, 7, 3])),
            Organ("bowel wall", tube([(0, -55, -225), (4, -52, -270), (0, -40, -320)], [16, 19, 13])),
            Organ("stool", tube([(0, -55, -225), (4, -52, -265)], [12, 14])),
            Organ("uterus or prostate", [self.ball((3, -8, -285), (27, 22, 24))]),
            Organ("muscle", [self.ball((0, 32, -268), (44, 32, 34), vary=0)]),
            Organ("bladder", [ellipsoid((0, 32, -268), (40, 28, 30))]),
        ]

    def retroperitoneum(self) -> list[Organ]:
        """Kidneys, great vessels, adrenals, pancreas, duodenum."""
        rng, out = self.rng, []
        for s, z in ((1, -52), (-1, -36)):
            kidney = shared(self.ball((s * 60, -38, z), (26, 27, 56), (8, s * -12, s * 35)))
            hilum = ellipsoid((s * 40, -26, z), (17, 12, 24), (0, s * -12, s * 30))
            pyramids = [ellipsoid(np.array((s * 59, -38, z)) + (13 * np.sin(a) * s, 13 * np.cos(a), h), (8, 8, 10)) for h in (-36, -18, 0, 18, 36) for a in (-0.6, 0.7, 2.0, 3.4)]
            out += [
                Organ("visceral fat", [inset(kidney, -9)]),
                Organ("kidney cortex", [kidney]),
                Organ("kidney medulla", [cut(p, inset(kidney, 6)) for p in pyramids]),
                Organ("visceral fat", [hilum]),
                Organ("renal pelvis", [ellipsoid((s * 42, -28, z - 2), (10, 6, 12))]),
                Organ("vena cava", tube([(s * 48, -28, z + 4), (s * 30, -20, z + 8), (14, -18, z + 10)], [5, 5, 5.5])),
                Organ("aorta", tube([(s * 46, -32, z + 8), (s * 20, -26, z + 14), (-8, -20, z + 16)], [2.8, 3, 3.4])),
                Organ("adrenal", [*tube([(s * 32, -38, z + 62), (s * 42, -50, z + 66)], 3), *tube([(s * 32, -38, z + 62), (s * 30, -52, z + 66)], 2.6)]),
            ]  # fmt: skip
        for s in (-1, 1):
            out += [
                Organ("vena cava", tube([(16, -22, -160), (s * 30, -30, -200), (s * 58, 0, -250), (s * 72, 42, -300), (s * 72, 40, -430)], [9, 8, 8, 8, 6])),
                Organ("iliac artery", tube([(-6, -16, -150), (s * 26, -18, -195), (s * 56, 14, -250), (s * 78, 48, -300), (s * 82, 46, -430)], [7, 6, 5.5, 5, 4.5])),
            ]  # fmt: skip
        mesentery = []
        for _ in range(7):
            mesentery += [cut(v, inset(self.cavity, 12)) for v in tree(rng, (2, 14, -55), rng.normal((0, 0.6, -1), 0.4), 36, 2.6, 4, spread=0.7)]
        return out + [
            Organ("vena cava", tube([(18, -20, -165), (20, -18, -60), (25, -14, 20)], [11, 12, 13], flat=0.75)),
            Organ("aorta", tube([(-20, -36, 95), (-14, -30, 55), (-9, -19, 0), (-7, -16, -90), (-6, -16, -155)], [11, 11, 10, 9.2, 8.5])),
            Organ("aorta", [*tube([(-8, -10, 22), (-4, 6, 18), (20, 14, 10)], [3.6, 3.4, 3]), *tube([(-8, -8, 4), (-4, 6, -20), (2, 12, -60), (4, 16, -110)], [3.8, 3.8, 3.4, 3])]),
            Organ("portal vein", [*tube([(14, 8, -100), (12, 8, -50), (14, 6, -14)], [5, 6, 6.5]), *tube([(-85, -25, 25), (-40, -8, 8), (12, 5, -10)], [4, 5, 5.5])]),
            Organ("lung vessel", mesentery),
            Organ("pancreas", tube([(34, 8, -42), (28, 12, -25), (8, 16, -12), (-30, 6, 2), (-66, -16, 20)], [14, 15, 9, 10, 8])),
            Organ("bowel wall", tube([(22, 32, -18), (42, 10, -25), (48, -2, -60), (38, -8, -92), (0, -2, -98), (-30, 8, -75)], 12.5)),
            Organ("fluid", tube([(22, 32, -18), (42, 10, -25), (48, -2, -60), (38, -8, -92), (0, -2, -98), (-30, 8, -75)], 9.5)),
        ]  # fmt: skip

    def bowel(self) -> list[Organ]:
        """Small bowel: walks in the middle of the cavity. Colon: its frame, with haustra, stool and gas."""
        rng, out = self.rng, []
        for _ in range(14):
            walk = [rng.uniform((-75, 5, -235), (65, 65, -75))]
            for _ in range(8):
                walk.append(np.clip(walk[-1] + rng.normal(0, (28, 18, 22)), (-95, 0, -250), (80, 80, -68)))
            loop = union(tube(walk, rng.uniform(8, 13), step=11))
            content = rng.choice(["fluid", "chyme", "bowel wall"], p=[0.3, 0.45, 0.25])
            out += [Organ("bowel wall", [loop]), Organ(content, [inset(loop, 2.2)])]
            if rng.random() < 0.4:
                out.append(Organ("gas", [cut(inset(loop, 2.2), half_space("y", 1, max(p[1] for p in walk)))]))
        frame = [(70, 10, -225), (98, 5, -190), (102, -8, -120), (92, 8, -78), (62, 58, -78), (10, 70, -100), (-50, 66, -70), (-92, 25, -5),
                 (-108, -10, 20), (-108, -28, -40), (-108, -15, -120), (-98, 2, -180), (-60, 20, -215), (-20, 5, -235), (0, -40, -225)]  # fmt: skip
        frame = np.array(frame) + rng.normal(0, 4, (len(frame), 3))
        radii = np.array([29, 27, 24, 22, 21, 20, 19, 18, 18, 15, 14, 15, 15, 15, 14]) * rng.uniform(0.8, 1.1, len(frame))
        segments = tube(frame, radii, step=8)
        colon = union([inset(s, 2.5 * (n % 4 == 0)) for n, s in enumerate(segments)])  # a fold every fourth step: haustra
        pockets = [ellipsoid((np.add(s.low, s.high) / 2) + (0, 8, 0), rng.uniform(8, 22, 3)) for s in segments if rng.random() < 0.35]
        lumen = inset(colon, 2.5)
        return out + [Organ("bowel wall", [colon]), Organ("stool", [lumen]), Organ("gas", [cut(p, lumen) for p in pockets])]

    def upper_abdomen(self) -> list[Organ]:
        rng = self.rng
        inner = shared(inset(self.below, 3.5))
        lobes = [
            self.ball((80, 4, 24), (58, 74, 70), (0, 14, -16)),  # right
            self.ball((-4, 48, 46), (74, 33, 30), (0, 6, 8)),  # left
            self.ball((97, 0, -36), (25, 42, 52), (0, -8, 0)),  # inferior tip
            self.ball((21, -6, 36), (16, 20, 28)),  # caudate
        ]
        under = ellipsoid((8, 0, -62), (62, 75, 74), (0, -20, 0))  # the viscera that hollow its lower face
        liver = shared(cut(cut(blend(lobes, 24), outside(under), width=14), inset(self.below, 2.8), width=3))
        spleen = cut(self.ball((-98, -36, 26), (40, 54, 58), (20, -12, -35)), inner, outside(ellipsoid((-62, -10, 20), (42, 48, 60))), width=10)
        stomach = [(-52, -22, 66), (-66, -10, 52), (-72, 12, 22), (-60, 36, -8), (-28, 48, -30), (6, 42, -26), (22, 34, -18)]
        size = np.array([22, 32, 32, 27, 22, 16, 9]) * rng.uniform(0.85, 1.1)
        stomach = shared(blend(tube(stomach, size, step=28), 18))
        stomach = shared(cut(stomach, inner))
        hilum = np.array((30, 8, 2))
        portal = [*tube([(14, 6, -14), (22, 7, -6), hilum], 6.5), *tube([hilum, (48, 4, 10)], 6.2), *tube([hilum, (10, 26, 22), (-14, 44, 36)], [5.5, 5, 4.5])]
        for start, towards in [((48, 4, 10), (0.8, 0.6, -0.4)), ((48, 4, 10), (0.9, -0.6, 0.1)), ((48, 4, 10), (0.6, 0.3, 0.8)), ((44, 6, 8), (0.5, -0.4, -0.9)), ((-14, 44, 36), (-1, 0.3, 0.3))]:
            portal += tree(rng, start, towards, 34, 4.6, 4)
        veins = []
        for end, towards in [((60, -14, 62), (0.9, 0.1, -0.6)), ((40, 18, 66), (0.4, 0.8, -0.6)), ((0, 22, 62), (-0.9, 0.7, -0.3))]:
            veins += tube([(26, -20, 70), end], [6, 5.2])
            veins += tree(rng, end, towards, 36, 4.8, 4)
        tumours = [cut(t, inset(liver, 4)) for t in self.tumours(liver)]
        level = float(20 + rng.uniform(-10, 12))
        food = rng.choice(["food", "fluid"], p=[0.7, 0.3])
        bile = self.ball((42, 40, -30), (15, 19, 32), (-25, 12, 0))
        return [
            Organ("spleen", [spleen]),
            Organ("liver", [liver], LIVER),
            Organ("tumour", tumours, TUMOUR),
            Organ("portal vein", [cut(v, liver) for v in portal], LIVER),
            Organ("hepatic vein", [cut(v, liver) for v in veins], LIVER),
            Organ("visceral fat", [cut(ellipsoid((2, 62, 8), (3.5, 34, 36), (12, 0, 8)), inner)]),  # fissure of the ligamentum teres
            Organ("visceral fat", [ellipsoid((28, 6, -4), (13, 9, 12))]),  # porta hepatis
            Organ("portal vein", portal[:3]),
            Organ("vena cava", tube([(25, -20, 20), (26, -24, 55), (27, -14, 84), (28, -2, 112)], [13, 13.5, 14, 14], flat=0.85)),
            Organ("stomach wall", [stomach]),
            Organ(food, [inset(stomach, 4)]),
            Organ("gas", [cut(inset(stomach, 4), half_space("y", 1, level))]),
            Organ("gallbladder wall", [bile]),
            Organ("gallbladder", [inset(bile, 1.8)]),
        ]

    def tumours(self, liver: Shape) -> list[Shape]:
        """One to six, 8 to 60 mm across, anywhere well inside the liver."""
        rng, found = self.rng, []
        while len(found) < self.count:
            centre = rng.uniform((-60, -70, -70), (135, 80, 90))
            radius = float(np.clip(rng.lognormal(2.2, 0.5), 4, 30))
            here = Points(*(np.full((1, 1), v, np.float32) for v in centre), grain={})
            if liver.distance(here)[0, 0] < -4 - 0.6 * radius:
                found.append(ellipsoid(centre, radius * rng.uniform(0.8, 1.2, 3), rng.uniform(0, 90, 3)))
        return found


def half_couch(back: float) -> Shape:
    """The curved couch top under the patient: a shallow trough, 12 mm thick."""

    def distance(at):
        middle = np.float32(back - 14) + at.x * at.x * np.float32(1 / 900)
        return np.maximum(np.abs(at.y - middle) - 7, np.abs(at.x) - 215)

    return Shape(distance, (-220, back - 60, -1e4), (220, back + 80, 1e4))
