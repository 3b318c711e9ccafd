"""HU of each tissue by contrast phase, and its texture."""

from typing import NamedTuple

PHASES = ("native", "arterial", "portal")


class Tissue(NamedTuple):
    """Mean HU in the native, arterial and portal venous phase; amplitude (HU) and name of the texture."""

    native: float
    arterial: float
    portal: float
    amplitude: float = 0.0
    texture: str = "coarse"


# Native and portal venous means within the published ranges: liver 55 +- 10 -> 102, spleen
# 35-55 -> 120, kidney 20-40 -> 175, muscle 45-60 -> 60-70, aorta 45-65 -> 130-160, portal and hepatic veins 40 ->
# 150-180, metastasis 30-40 -> 40-70, cyst 0-15, fluid 0-20, fat -100 +- 10, lung -850..-910, trabecular bone 150-250,
# cortical 700+. The arterial column is our reading of routine late arterial CT.
TISSUES = {
    "air": Tissue(-1000, -1000, -1000),
    "gas": Tissue(-940, -940, -940),
    "couch shell": Tissue(-60, -60, -60),
    "couch foam": Tissue(-960, -960, -960),
    "skin": Tissue(10, 12, 15),
    "fat": Tissue(-106, -106, -105, 5, "fine"),
    "visceral fat": Tissue(-100, -99, -98, 9, "medium"),
    "muscle": Tissue(54, 58, 64, 7, "medium"),
    "lung": Tissue(-868, -865, -862, 22, "medium"),
    "lung vessel": Tissue(40, 160, 120),
    "cartilage": Tissue(95, 95, 95, 15, "medium"),
    "cortical bone": Tissue(720, 720, 720, 120, "medium"),
    "trabecular bone": Tissue(175, 178, 185, 24, "fine"),
    "disc": Tissue(78, 78, 80, 6, "medium"),
    "spinal canal": Tissue(22, 22, 24, 5),
    "myocardium": Tissue(46, 105, 108, 5),
    "heart blood": Tissue(44, 240, 138, 5),
    "liver": Tissue(56, 66, 104, 3.5),
    "tumour": Tissue(36, 46, 62, 8, "medium"),
    "cyst": Tissue(6, 7, 8),
    "portal vein": Tissue(41, 82, 165),
    "hepatic vein": Tissue(40, 48, 155),
    "aorta": Tissue(46, 290, 146),
    "vena cava": Tissue(42, 80, 132, 5),
    "gallbladder": Tissue(9, 9, 10),
    "gallbladder wall": Tissue(35, 55, 75),
    "spleen": Tissue(47, 108, 120, 3),
    "kidney cortex": Tissue(33, 168, 182, 4),
    "kidney medulla": Tissue(30, 62, 160, 6),
    "pancreas": Tissue(40, 96, 94, 20, "medium"),
    "adrenal": Tissue(28, 60, 70),
    "bowel wall": Tissue(40, 72, 88, 8, "medium"),
    "stomach wall": Tissue(42, 74, 90, 6, "medium"),
    "food": Tissue(52, 62, 94, 6, "medium"),
    "fluid": Tissue(14, 14, 15, 5, "medium"),
    "chyme": Tissue(32, 36, 45, 14, "medium"),
    "stool": Tissue(-20, -20, -15, 110, "medium"),
    "bladder": Tissue(5, 5, 8),
    "uterus or prostate": Tissue(42, 70, 92, 8),
}
