"""One patient: the organs in painting order, later ones over earlier ones; the liver and its neighbours."""

import numpy as np

from .body import Body, Organ
from .frame import muscles, pelvis, skeleton, trunk
from .points import Points
from .shapes import Shape, blend, cut, ellipsoid, half_space, inset, outside, shared, tree, tube, union
from .viscera import bowel, heart, kidney, lungs, vessels

LIVER, TUMOUR = 1, 2
LIVER_EXTENT = -98.0, 102.0  # z range of every liver in the patient's frame, mm


def anatomy(seed: int) -> list[Organ]:
    """All organs of the patient with this seed."""
    body = Body(seed)
    right_kidney, right = kidney(body, 1, -52)
    _, left = kidney(body, -1, -36)
    frame = [*trunk(body), *lungs(body), *muscles(body), *skeleton(body), *heart(body), *pelvis(body)]
    return [
        *frame,
        *left,
        *right,
        *vessels(body),
        *bowel(body),
        *spleen(body),
        *liver(body, right_kidney),
        *stomach(body),
    ]


def liver(body: Body, right_kidney: Shape) -> list[Organ]:
    """Blended lobes, cut by diaphragm, kidney and viscera, with portal and hepatic veins, cysts and tumours."""
    rng = body.rng
    size = np.clip(rng.normal(0.99, 0.03), 0.93, 1.06)
    lobes = [
        body.ball((79, 5, 25), size * np.array((57, 70, 72)), (0, 14, -16)),  # right
        body.ball((66, 12, 62), size * np.array((57, 60, 44))),  # dome
        body.ball((-4, 48, 46), size * np.array((74, 33, 30)), (0, 6, 8)),  # left
        body.ball((97, 0, -36), size * np.array((25, 42, 52)), (0, -8, 0)),  # inferior tip
        body.ball((21, -6, 36), size * np.array((16, 20, 28))),  # caudate
    ]
    viscera = outside(ellipsoid((8, 0, -62), (62, 75, 74), (0, -20, 0)))
    whole = cut(blend(lobes, 24), viscera, outside(inset(right_kidney, -3)), width=14)
    whole = shared(cut(whole, inset(body.below, 2.8), width=3))

    porta, right, left = (30, 8, 2), (48, 4, 10), (-14, 44, 36)
    stem = tube([(14, 6, -14), (22, 7, -6), porta], 6.5)
    portal = [*stem, *tube([porta, right], 6.2), *tube([porta, (10, 26, 22), left], [5.5, 5, 4.5])]
    for start, way in [
        (right, (0.8, 0.6, -0.4)),
        (right, (0.9, -0.6, 0.1)),
        (right, (0.6, 0.3, 0.8)),
        (right, (0.4, -0.4, -0.9)),
        (left, (-1, 0.3, 0.3)),
    ]:
        portal += tree(rng, start, way, 34, 4.8, 5)
    hepatic = []
    for end, way in [
        ((60, -14, 62), (0.9, 0.1, -0.6)),
        ((40, 18, 66), (0.4, 0.8, -0.6)),
        ((0, 22, 62), (-0.9, 0.7, -0.3)),
    ]:
        hepatic += tube([(26, -20, 70), end], [6, 5.2]) + tree(rng, end, way, 36, 5.2, 5)

    tumours, cysts = lesions(rng, whole, int(rng.integers(1, 7))), lesions(rng, whole, int(rng.choice([0, 0, 1, 2])))
    bile = body.ball((42, 40, -30), (15, 19, 32), (-25, 12, 0))
    cava = tube([(25, -20, 20), (26, -24, 55), (27, -14, 84), (28, -2, 112)], [13, 13.5, 14, 14], flat=0.85)
    return [
        Organ("liver", [whole], LIVER),
        Organ("portal vein", [cut(union(portal), whole)], LIVER),
        Organ("hepatic vein", [cut(union(hepatic), whole)], LIVER),
        Organ("cyst", cysts, LIVER),
        Organ("tumour", tumours, TUMOUR),
        Organ(
            "visceral fat", [cut(ellipsoid((2, 62, 8), (3.5, 34, 36), (12, 0, 8)), inset(body.below, 3.5))]
        ),  # round ligament
        Organ("visceral fat", [ellipsoid((28, 6, -4), (13, 9, 12))]),  # porta hepatis
        Organ("portal vein", stem),
        Organ("vena cava", cava),
        Organ("gallbladder wall", [bile]),
        Organ("gallbladder", [inset(bile, 1.8)]),
    ]


def lesions(rng: np.random.Generator, liver: Shape, count: int) -> list[Shape]:
    """Round lesions of 8 to 60 mm, anywhere in the liver at least 4 mm below its surface."""
    found: list[Shape] = []
    while len(found) < count:
        centre = rng.uniform((-60, -70, -70), (135, 80, 90))
        radius = float(np.clip(rng.lognormal(2.2, 0.5), 4, 30))
        x, y, z = (np.full((1, 1), v, np.float32) for v in centre)
        here = Points(x, y, z)
        if liver.distance(here)[0, 0] < -4 - 0.6 * radius:
            lesion = ellipsoid(centre, radius * rng.uniform(0.8, 1.2, 3), rng.uniform(0, 90, 3))
            found.append(cut(lesion, inset(liver, 4)))
    return found


def spleen(body: Body) -> list[Organ]:
    hollow = outside(ellipsoid((-62, -10, 20), (42, 48, 60)))  # by stomach and kidney
    outline = body.ball((-98, -36, 26), (40, 54, 58), (20, -12, -35))
    return [Organ("spleen", [cut(outline, inset(body.below, 3.5), hollow, width=10)])]


def stomach(body: Body) -> list[Organ]:
    """From fundus to pylorus, touching the left lobe: food with nearly the liver's HU, or fluid, below gas."""
    rng = body.rng
    course = [(-52, -22, 66), (-66, -10, 52), (-72, 12, 22), (-60, 36, -8), (-28, 48, -30), (6, 42, -26), (22, 34, -18)]
    radii = np.array([22, 32, 32, 27, 22, 16, 9]) * rng.uniform(0.85, 1.1)
    outline = shared(cut(blend(tube(course, radii, step=28), 18), inset(body.below, 3.5)))
    lumen = inset(outline, 4)
    return [
        Organ("stomach wall", [outline]),
        Organ(rng.choice(["food", "fluid"], p=[0.7, 0.3]), [lumen]),
        Organ("gas", [cut(lumen, half_space("y", 1, rng.uniform(10, 32)))]),
    ]
