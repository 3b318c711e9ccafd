"""One peer, with random weights, on one CT: read, resample, sliding windows, back to the CT's grid, write.

python benchmarks/peers/zoo.py CT OUT NAME [--bfloat16] [--seconds 20] [--report FILE]

The settings are those of the MONAI Model Zoo's bundles (`configs/inference.json` of wholeBody_ct_segmentation,
spleen_ct_segmentation and swin_unetr_btcv_segmentation), and nnU-Net's plan for LiTS (its 3d_fullres configuration:
128-cubes at 0.77 x 0.77 x 1 mm, cubic resampling, half overlap, Gaussian weights) without mirroring. All run in float32
on a CPU: the bundles' `amp` is only for CUDA. The weights are random, except one bias, which makes everything
background: an empty mask is the fastest to write.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn as nn
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import DynUNet, SegResNet, SwinUNETR, UNet
from monai.transforms import (
    Activationsd,
    AsDiscreted,
    Compose,
    EnsureChannelFirstd,
    Invertd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    SaveImaged,
    ScaleIntensityd,
    ScaleIntensityRanged,
    Spacingd,
    Transform,
)
from sampled import Sampled, parser

LITS_HU = (-17.0, 201.0)  # percentiles 0.5 and 99.5 of LiTS's liver and tumour, by nnU-Net
LITS_MEAN, LITS_DEVIATION = 99.40, 39.36


class Peer(NamedTuple):
    """How a peer sees a CT."""

    network: Callable[[], nn.Module]
    classes: int
    spacing: tuple[float, float, float]  # mm
    intensity: list[Transform]
    inferer: SlidingWindowInferer
    answer: list[str]  # the order of "softmax", "argmax", and "invert" or "invert nearest"
    order: str | int = "bilinear"  # of the resampling of the CT
    dtype: type = float  # of the mask's file


def window(low: float, high: float, to: tuple[float, float] = (0.0, 1.0)) -> list[Transform]:
    """Clips to `low`..`high` HU and scales to `to`."""
    return [ScaleIntensityRanged("image", a_min=low, a_max=high, b_min=to[0], b_max=to[1], clip=True)]


def whole_body(millimetres: float) -> Peer:
    """wholeBody_ct_segmentation: 104 structures; 1.5 mm, or 3 mm for its quicker one."""
    network = partial(SegResNet, 3, 32, 1, 105, dropout_prob=0.2, blocks_down=(1, 2, 2, 4), blocks_up=(1, 1, 1))
    return Peer(
        network,
        105,
        (millimetres,) * 3,
        [NormalizeIntensityd("image", nonzero=True), ScaleIntensityd("image", minv=-1.0, maxv=1.0)],
        SlidingWindowInferer((96, 96, 96), 1, overlap=0.25, mode="gaussian", padding_mode="replicate"),
        ["softmax", "argmax", "invert nearest"],
    )


PEERS = {
    "wholeBody SegResNet 1.5 mm": whole_body(1.5),
    "wholeBody SegResNet 3 mm": whole_body(3.0),
    "spleen UNet": Peer(
        partial(UNet, 3, 1, 2, (16, 32, 64, 128, 256), (2, 2, 2, 2), num_res_units=2, norm="batch"),
        2,
        (1.5, 1.5, 2.0),
        window(-57, 164),
        SlidingWindowInferer((96, 96, 96), 4, overlap=0.5),
        ["softmax", "invert", "argmax"],
    ),
    "btcv SwinUNETR": Peer(
        partial(SwinUNETR, in_channels=1, out_channels=14, feature_size=48),
        14,
        (1.5, 1.5, 2.0),
        window(-175, 250),
        SlidingWindowInferer((96, 96, 96), 4, overlap=0.5),
        ["softmax", "invert", "argmax"],
    ),
    "nnU-Net 3d_fullres by DynUNet": Peer(
        partial(
            DynUNet,
            3,
            1,
            3,
            kernel_size=[3] * 6,
            strides=[1, 2, 2, 2, 2, 2],
            upsample_kernel_size=[2] * 5,
            filters=[32, 64, 128, 256, 320, 320],
        ),
        3,
        (0.7676, 0.7676, 1.0),
        window(*LITS_HU, to=tuple((hu - LITS_MEAN) / LITS_DEVIATION for hu in LITS_HU)),
        SlidingWindowInferer((128, 128, 128), 1, overlap=0.5, mode="gaussian"),
        ["invert", "argmax"],
        order=3,
        dtype=int,
    ),
}


def before(peer: Peer) -> Compose:
    """A path -> the CT as the network sees it, `(1, X, Y, Z)`."""
    steps = [LoadImaged("image"), EnsureChannelFirstd("image"), Orientationd("image", axcodes="RAS", labels=None)]
    return Compose([*steps, Spacingd("image", pixdim=peer.spacing, mode=peer.order), *peer.intensity])


def after(peer: Peer, preprocessing: Compose, folder: Path) -> Compose:
    """Logits `(C, X, Y, Z)` -> the written mask."""
    invert = partial(Invertd, "pred", transform=preprocessing, orig_keys="image", to_tensor=True)
    steps = {
        "softmax": Activationsd("pred", softmax=True),
        "argmax": AsDiscreted("pred", argmax=True),
        "invert": invert(nearest_interp=False),
        "invert nearest": invert(nearest_interp=True),
    }
    dtype = "float32" if peer.dtype is float else "uint8"
    save = SaveImaged("pred", output_dir=folder, output_ext=".nii.gz", output_dtype=dtype, print_log=False)
    return Compose([*(steps[name] for name in peer.answer), save])


def with_empty_answer(network: nn.Module, classes: int) -> nn.Module:
    """The network with the last bias of its head such that the first class, the background, wins everywhere."""
    head = [parameter for parameter in network.parameters() if parameter.shape == (classes,)][-1]
    with torch.no_grad():
        head[0] = 1e4
    return network.eval()


@torch.inference_mode()
def segment(peer: Peer, ct: Path, folder: Path, bfloat16: bool, seconds: float) -> Sampled:
    """Writes the peer's mask of a CT into a folder."""
    network = with_empty_answer(peer.network(), peer.classes)

    def forward(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return network(x)

    sampled = Sampled(forward, seconds)
    preprocessing = before(peer)
    item = preprocessing({"image": str(ct)})
    item["pred"] = MetaTensor(peer.inferer(item["image"][None].as_tensor(), sampled)[0], meta=item["image"].meta)
    sampled.answers.clear()  # the peer would not keep them: its peak of memory is yet to come
    after(peer, preprocessing, folder)(item)
    return sampled


def main() -> None:
    options = parser(__doc__)
    options.add_argument("name", choices=PEERS)
    options.add_argument("--bfloat16", action="store_true", help="run the network in bfloat16 autocast")
    arguments = options.parse_args()
    sampled = segment(PEERS[arguments.name], arguments.ct, arguments.out, arguments.bfloat16, arguments.seconds)
    if arguments.report:
        sampled.report(arguments.report)


if __name__ == "__main__":
    main()
