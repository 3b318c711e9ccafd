"""The paper's figures for each network: DSC of its Tables 2 to 4."""

from __future__ import annotations

OURS = "RA V-Net"  # the paper's own

PUBLISHED: dict[str, tuple[float, ...]] = {
    "U-Net": (0.8547,),
    "Res U-Net": (0.88,),
    "CofRes U-Net": (0.9402,),
    "SA-UNet": (0.9105,),
    "BCDU-Net D1": (0.8959, 0.88),  # Table 3 and Table 4; the paper does not say whether it is D1 or D3
    "BCDU-Net D3": (0.8959, 0.88),
    "Mo": (0.9369,),
    "CSDResU-Net": (0.94,),
    "ULSM-Net": (0.9518,),
    "CS2-Net": (0.9587,),
    "RA V-Net without CofRes": (0.9214,),
    "RA V-Net": (0.9654,),
}
"""Network -> DSC as printed; several where its tables differ."""
