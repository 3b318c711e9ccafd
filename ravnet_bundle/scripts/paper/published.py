"""The paper's Tables 1 to 4, and the networks in its Figures 8, 9 and 12."""

from __future__ import annotations

from typing import NamedTuple

LOSS_NETWORK = "RA V-Net"  # Table 1 is of "the same model"; the paper does not say which


class Published(NamedTuple):
    """One row: accuracy, precision, DSC and JSC as printed; `None` if missing."""

    acc: float | None = None
    pre: float | None = None
    dsc: float | None = None
    jsc: float | None = None


LOSSES = {  # Table 1, which has no JSC
    "Dice": Published(0.9931, 0.9545, 0.9368),
    "BCE": Published(0.9933, 0.9336, 0.9144),
}

# A row of the paper is listed for each network that it may mean.
TABLES: dict[str, tuple[str, dict[str, Published]]] = {
    "2": (
        "encoders",
        {
            "U-Net": Published(0.9862, 0.9118, 0.8547, 0.82),
            "Res U-Net": Published(0.988, 0.9221, 0.88, 0.83),
            "Res2 U-Net": Published(),
            "CofRes U-Net": Published(0.9919, 0.9377, 0.9402, 0.89),
        },
    ),
    "3": (
        "decoders and attention",
        {
            "U-Net": Published(0.9862, 0.9518, 0.8547, 0.82),
            "SA-UNet": Published(None, 0.91, 0.9105, 0.86),
            "BCDU-Net D1": Published(0.9879, 0.87, 0.8959, 0.85),
            "BCDU-Net D3": Published(0.9879, 0.87, 0.8959, 0.85),
            "RA V-Net without CofRes": Published(0.9903, 0.9387, 0.9214, 0.86),
        },
    ),
    "4": (
        "all networks",
        {
            "U-Net": Published(0.9862, 0.9118, 0.8547, 0.82),
            "SA-UNet": Published(None, 0.91, 0.9105, 0.86),
            "BCDU-Net D1": Published(0.9879, 0.87, 0.88, 0.85),
            "BCDU-Net D3": Published(0.9879, 0.87, 0.88, 0.85),
            "Res U-Net": Published(0.988, 0.9221, 0.88, 0.83),
            "Mo": Published(None, 0.9315, 0.9369, 0.8749),
            "CSDResU-Net": Published(None, 0.9224, 0.94),
            "ULSM-Net": Published(None, 0.9635, 0.9518),
            "CS2-Net": Published(0.9923, 0.9512, 0.9587, 0.9335),
            "RA V-Net without CofRes": Published(0.9903, 0.9387, 0.9214, 0.86),
            "CofRes U-Net": Published(0.9919, 0.9377, 0.9402, 0.89),
            "RA V-Net": Published(0.9968, 0.9597, 0.9654, 0.9414),
        },
    ),
}

PANELS: dict[int, tuple[str, ...]] = {
    8: ("U-Net", "Res U-Net", "CofRes U-Net"),
    9: ("U-Net", "SA-UNet", "BCDU-Net D1", "BCDU-Net D3", "RA V-Net without CofRes"),
    12: (
        "U-Net", "Res U-Net", "SA-UNet", "BCDU-Net D1", "BCDU-Net D3", "CS2-Net", "Mo", "CSDResU-Net", "ULSM-Net",
        "CofRes U-Net", "RA V-Net without CofRes", "RA V-Net",
    ),
}  # fmt: skip

NOTES = """\
- Accuracy, precision, DSC and JSC are the paper's pixel metrics on liver (tumour counts as liver) and each scan's own
  grid. `slices`: of each slice that shows liver in the reference, then averaged. `pooled`: the pixels of all slices of
  all scans, counted together. The paper does not say which is its own; `paper` is what it prints.
- † JSC above DSC / (2 - DSC), which pixels counted together cannot give: such figures of the paper are means over
  slices or cases, or wrong.
- The paper contradicts itself: U-Net's precision is .9118 in its Tables 2 and 4 and .9518 in Table 3; BCD U-Net's DSC
  is .8959 in Table 3 and .88 in Table 4. It does not say which BCDU-Net it ran: its row stands beside D1 and D3.
- The paper trained at another width, on other scans and for longer, and does not name its scans: its figures and ours
  share a definition at best, not an experiment. Rows of ours share everything but the network.
- Table 1's "same model" is not named in the paper; ours is RA V-Net. The paper averages ten runs, we report one.
"""
