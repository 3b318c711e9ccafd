"""The viscera around the liver: lungs, heart, great vessels, kidneys, pancreas, bowel."""

import numpy as np

from .body import Body, Organ
from .frame import SIDES, pair
from .shapes import Shape, blend, cut, ellipsoid, half_space, inset, outside, shared, tree, tube, union


def lungs(body: Body) -> list[Organ]:
    """Lungs, their vessels, the mediastinum's fat; then the diaphragm and, below it, the abdomen's."""
    lung = cut(inset(body.cavity, 2.5), half_space("z", 1, -45))
    ways = [(1, 0.3, 0.9), (1, -0.4, 0.1), (1, 0.7, -0.3), (0.7, -0.8, -1), (0.5, 0.2, -1), (1, 0.1, -0.7)]
    trees = [
        union(tree(body.rng, (s * 32, -8, 190), np.multiply(way, (s, 1, 1)), 38, 6.2, 5)) for s in SIDES for way in ways
    ]
    return [
        Organ("lung", [lung]),
        Organ("lung vessel", [cut(vessels, lung) for vessels in trees]),
        Organ("visceral fat", [cut(ellipsoid((0, 0, 215), (30, 92, 130)), body.cavity)]),
        Organ("muscle", [body.below]),
        Organ("visceral fat", [inset(body.below, 2.5)]),
    ]


def heart(body: Body) -> list[Organ]:
    """Heart on the diaphragm, great vessels, oesophagus, airways."""
    muscle = blend([body.ball((-28, 32, 128), (58, 46, 46), (0, 28, 25)), body.ball((18, 22, 140), (36, 42, 48))], 20)
    chambers = [
        ellipsoid((-52, 28, 120), (27, 21, 33), (0, 30, 25)),  # left ventricle
        ellipsoid((-10, 52, 116), (38, 17, 27), (0, 25, 20)),  # right ventricle
        ellipsoid((32, 26, 134), (19, 25, 32)),  # right atrium
        ellipsoid((-4, -4, 152), (32, 17, 22)),  # left atrium
    ]
    arch = [
        (-20, -36, 90),
        (-22, -40, 160),
        (-22, -34, 235),
        (-10, -5, 262),
        (12, 25, 245),
        (6, 25, 200),
        (-8, 20, 165),
    ]
    # fmt: off
    return [
        Organ("visceral fat", [cut(inset(muscle, -5), inset(body.cavity, 2), outside(body.below))]),
        Organ("myocardium", [cut(muscle, inset(body.cavity, 4), outside(inset(body.below, -1)))]),
        Organ("heart blood", [cut(chamber, inset(muscle, 4), outside(inset(body.below, -4))) for chamber in chambers]),
        Organ("heart blood", tube([(-6, 35, 170), (-12, 22, 200), (-30, 0, 205)], 13)),  # pulmonary artery
        Organ("heart blood", tube([(-12, 20, 205), (34, -2, 198)], 11)),
        Organ("vena cava", tube([(30, 15, 150), (28, 12, 250), (34, 20, 285)], 9)),
        Organ("aorta", tube(arch, [11.5, 12, 12.5, 13.5, 15, 15, 15])),
        Organ("aorta", tube([(-6, 0, 262), (12, 10, 300), (22, 0, 340)], 6)),
        Organ("aorta", tube([(-16, -12, 262), (-26, -5, 300), (-24, 0, 340)], 4.5)),
        Organ("bowel wall", tube([(-2, -28, 330), (-2, -26, 200), (-14, -16, 100), (-24, -4, 78)], [7, 7, 8, 8])),
        Organ("cartilage", tube([(0, -6, 345), (0, -12, 225)], 10.5)),
        Organ("gas", tube([(0, -6, 480), (0, -6, 345), (0, -12, 225)], 8.5)),
        Organ("gas", tube([(0, -12, 228), (26, -12, 205)], 6.5) + tube([(0, -12, 228), (-30, -12, 200)], 6)),
    ]
    # fmt: on


def kidney(body: Body, side: int, z: float) -> tuple[Shape, list[Organ]]:
    """One kidney in its fat, with its vessels and adrenal: its outline, and the organs."""
    outline = shared(body.ball((side * 60, -38, z), (26, 27, 56), (8, side * -12, side * 35)))
    angles, heights = (-0.6, 0.7, 2.0, 3.4), (-36, -18, 0, 18, 36)
    pyramids = [
        ellipsoid((side * (59 + 13 * np.sin(a)), -38 + 13 * np.cos(a), z + h), (8, 8, 10))
        for h in heights
        for a in angles
    ]
    # fmt: off
    return outline, [
        Organ("visceral fat", [inset(outline, -9)]),
        Organ("kidney cortex", [outline]),
        Organ("kidney medulla", [cut(pyramid, inset(outline, 6)) for pyramid in pyramids]),
        Organ("visceral fat", [ellipsoid((side * 40, -26, z), (17, 12, 24), (0, side * -12, side * 30))]),  # its sinus
        Organ("fluid", [ellipsoid((side * 42, -28, z - 2), (10, 6, 12))]),
        Organ("vena cava", tube([(side * 48, -28, z + 4), (side * 30, -20, z + 8), (14, -18, z + 10)], [5, 5, 5.5])),
        Organ("aorta", tube([(side * 46, -32, z + 8), (side * 20, -26, z + 14), (-8, -20, z + 16)], [2.8, 3, 3.4])),
        Organ("adrenal", tube([(side * 42, -50, z + 66), (side * 32, -38, z + 62), (side * 30, -52, z + 66)], 2.8)),
    ]
    # fmt: on


def vessels(body: Body) -> list[Organ]:
    """Aorta and vena cava with their branches, the portal vein's roots, the mesentery's vessels."""
    ways = [body.rng.normal((0, 0.6, -1), 0.4) for _ in range(7)]
    mesentery = union([branch for way in ways for branch in tree(body.rng, (2, 14, -55), way, 36, 2.6, 4, spread=0.7)])
    iliac_veins = [(16, -22, -160), (30, -30, -200), (58, 0, -250), (72, 42, -300), (72, 40, -430)]
    iliac_arteries = [(3, -16, -150), (26, -18, -195), (56, 14, -250), (78, 48, -300), (82, 46, -430)]
    aorta = [(-20, -36, 95), (-14, -30, 55), (-9, -19, 0), (-7, -16, -90), (-6, -16, -155)]
    return [
        Organ("vena cava", pair(iliac_veins, [9, 8, 8, 8, 6])),
        Organ("aorta", pair(iliac_arteries, [7, 6, 5.5, 5, 4.5])),
        Organ("vena cava", tube([(18, -20, -165), (20, -18, -60), (25, -14, 20)], [11, 12, 13], flat=0.75)),
        Organ("aorta", tube(aorta, [11, 11, 10, 9.2, 8.5])),
        Organ("aorta", tube([(-8, -10, 22), (-4, 6, 18), (20, 14, 10)], [3.6, 3.4, 3])),  # coeliac trunk
        Organ("aorta", tube([(-8, -8, 4), (-4, 6, -20), (2, 12, -60), (4, 16, -110)], 3.5)),  # mesenteric artery
        Organ("portal vein", tube([(14, 8, -100), (12, 8, -50), (14, 6, -14)], [5, 6, 6.5])),  # mesenteric vein
        Organ("portal vein", tube([(-85, -25, 25), (-40, -8, 8), (12, 5, -10)], [4, 5, 5.5])),  # splenic vein
        Organ("portal vein", [cut(mesentery, inset(body.cavity, 12))]),
    ]


def bowel(body: Body) -> list[Organ]:
    """Pancreas, duodenum, small bowel as random walks, the colon's frame with haustra, stool and gas."""
    rng, inside = body.rng, inset(body.cavity, 2)
    duodenum = tube([(22, 32, -18), (42, 10, -25), (48, -2, -60), (38, -8, -92), (0, -2, -98), (-30, 8, -75)], 12.5)
    organs = [
        Organ(
            "pancreas",
            tube([(34, 8, -42), (28, 12, -25), (8, 16, -12), (-30, 6, 2), (-66, -16, 20)], [14, 15, 9, 10, 8]),
        ),
        Organ("bowel wall", duodenum),
        Organ("fluid", [inset(shape, 3) for shape in duodenum]),
    ]
    for _ in range(22):
        walk = [rng.uniform((-85, 0, -235), (75, 70, -65))]
        for _ in range(8):
            walk.append(np.clip(walk[-1] + rng.normal(0, (28, 18, 22)), (-95, 0, -250), (80, 80, -58)))
        loop = cut(union(tube(walk, rng.uniform(8, 13), step=11)), inside)
        content = rng.choice(["fluid", "chyme", "bowel wall"], p=[0.3, 0.45, 0.25])
        organs += [Organ("bowel wall", [loop]), Organ(content, [inset(loop, 2.2)])]
        if rng.random() < 0.4:
            organs.append(Organ("gas", [cut(inset(loop, 2.2), half_space("y", 1, max(y for _, y, _ in walk)))]))
    # fmt: off
    course = np.array([
        (70, 10, -225), (98, 5, -190), (102, -8, -120), (92, 8, -78), (62, 58, -78), (10, 70, -100), (-50, 66, -70),
        (-92, 25, -5), (-108, -10, 20), (-108, -28, -40), (-108, -15, -120), (-98, 2, -180), (-60, 20, -215),
        (-20, 5, -235), (0, -40, -225),
    ]) + rng.normal(0, 4, (15, 3))
    # fmt: on
    radii = np.array([29, 27, 24, 22, 21, 20, 19, 18, 18, 15, 14, 15, 15, 15, 14]) * rng.uniform(0.8, 1.1, 15)
    segments = tube(course, radii, step=8)
    colon = cut(
        union([inset(shape, 2.5 * (n % 4 == 0)) for n, shape in enumerate(segments)]), inside
    )  # every fourth is a fold: haustra
    lumen, middles = inset(colon, 2.5), [np.add(shape.low, shape.high) / 2 for shape in segments]
    pockets = [ellipsoid(middle + (0, 8, 0), rng.uniform(8, 22, 3)) for middle in middles if rng.random() < 0.35]
    return [
        *organs,
        Organ("bowel wall", [colon]),
        Organ("stool", [lumen]),
        Organ("gas", [cut(p, lumen) for p in pockets]),
    ]
