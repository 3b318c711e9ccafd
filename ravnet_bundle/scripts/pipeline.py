"""The bundle's `configs/inference.json` on one CT, slab by slab, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.transforms import Activationsd, AsDiscreted, Compose, SaveImaged
from torch.utils import serialization

from .diffusion import TissueDiffusiond
from .provenance import BUNDLE
from .transforms import LargestComponentd

SLAB = 8  # axial slices that are on their way at once


class Segmentation(NamedTuple):
    """What the pipeline found in one CT.

    Attributes:
        mask: uint8, 0 and 1, on the CT's own grid `(X, Y, Z)`.
        image: float16, what the network saw, 0..1, on its own grid `(X', Y', Z')`, axes towards R, A, S.
        probability: float32, what it answered, on the same grid, before anything in three dimensions.
        affine: of that grid, 4 x 4, RAS world, mm.
    """

    mask: np.ndarray
    image: np.ndarray
    probability: np.ndarray
    affine: np.ndarray


class Pipeline:
    """Opens `configs/inference.json` once, with its network and weights, and segments one loaded CT after the other.

    The config's transforms treat axial slices one by one, but for the choice of components and the diffusion: so they
    run on slabs of slices, and these on the whole probability, which is small on the network's grid. The mask is the
    same, bit for bit, as the one that `python -m monai.bundle run --config_file configs/inference.json` writes.

    Args:
        overrides: keys of the config and their values, such as `{"device": "cpu", "pixel_size": 3.0}`.
    """

    def __init__(self, **overrides: Any):
        config = _of_this_package(ConfigParser.load_config_file(BUNDLE / "configs" / "inference.json"))
        parser = ConfigParser(config)
        parser.update({"bundle_root": str(BUNDLE), **overrides})
        self.device = torch.device(parser.get_parsed_content("device"))
        self.key = parser.get_parsed_content("image_key")
        self.network = parser.get_parsed_content("network").eval()
        with serialization.config.patch("load.mmap", True):
            parser.get_parsed_content("checkpointloader")(Engine(lambda engine, batch: None))
        self.inferer = parser.get_parsed_content("inferer")
        _load, *before = parser.get_parsed_content("preprocessing").transforms
        self.before = Compose(before)
        after = list(parser.get_parsed_content("postprocessing").transforms)
        # what its Invertd undoes is the preprocessing whose transforms left their trace in the slab
        self.activate = Compose([step for step in after if isinstance(step, Activationsd)])
        three_dimensional = (LargestComponentd, TissueDiffusiond)
        self.choose = Compose([step for step in after if isinstance(step, three_dimensional)])
        self.decide = Compose([step for step in after if isinstance(step, AsDiscreted)])
        rest = (Activationsd, *three_dimensional, SaveImaged)
        self.restore = Compose([step for step in after if not isinstance(step, rest)])

    @torch.inference_mode()
    def __call__(self, ct: MetaTensor) -> Segmentation:
        """Segments a CT, `(X, Y, Z)` in HU, as `reading.load` gives it."""
        axis, upward = _axial(ct.affine.numpy())
        order = slice(None) if upward else slice(None, None, -1)  # the network's grid runs upward
        places = list(_slabs(ct.shape[axis]))[order]
        image, traces, depths = torch.empty(0), [], []
        for place in places:
            slab = self.before({self.key: _part(ct, axis, place)})[self.key]
            traces.append(MetaTensor(torch.empty(0), meta=slab.meta, applied_operations=slab.applied_operations))
            if not depths:  # at once: parts that are kept would scatter the memory between them
                image = torch.empty(*slab.shape[:3], ct.shape[axis])
            image[..., sum(depths) : sum(depths) + slab.shape[3]] = slab.as_tensor()
            depths.append(slab.shape[3])
        affine = traces[0].affine
        logits = self.inferer(MetaTensor(image[None], affine=affine).to(self.device), self.network)[0].cpu()
        probability = torch.as_tensor(np.asarray(self.activate({"pred": logits})["pred"]))
        del logits
        whole = {"pred": probability, self.key: MetaTensor(image, affine=affine)}
        chosen = self.choose(whole)["pred"].split(depths, dim=-1)
        mask = np.zeros(ct.shape, dtype=np.uint8)
        for place, piece, trace in zip(places, chosen, traces, strict=True):
            if not self.decide({"pred": piece})["pred"].any():  # nor will a value between these be liver
                continue
            restored = self.restore({"pred": MetaTensor(piece, meta=trace.meta), self.key: trace})["pred"]
            mask[_at(axis, place)] = restored[0].numpy()
        return Segmentation(mask, image[0].half().numpy(), probability[0].numpy(), np.asarray(affine, dtype=float))

    @torch.inference_mode()
    def predict(self, slices: np.ndarray) -> np.ndarray:
        """The network's probabilities for slices as it sees them: float32, `(N, X', Y') -> (N, X', Y')`."""
        parts = torch.from_numpy(slices)[:, None].split(self.inferer.batch_size)
        logits = torch.cat([self.inferer(part.to(self.device), self.network).cpu() for part in parts])
        return self.activate({"pred": logits})["pred"][:, 0].numpy()


def _axial(affine: np.ndarray) -> tuple[int, bool]:
    """The axis of the array that runs along the body, and whether it runs upward."""
    orientation = nib.orientations.io_orientation(affine)
    axis = int(np.flatnonzero(orientation[:, 0] == 2)[0])
    return axis, orientation[axis, 1] > 0


def _slabs(number: int) -> Iterator[slice]:
    """Slices 0 to `number` in parts of `SLAB`; the last one takes a rest of one slice along, which is no volume."""
    starts = list(range(0, max(1, number - 1), SLAB))
    yield from (slice(start, end) for start, end in zip(starts, [*starts[1:], number], strict=True))


def _at(axis: int, place: slice) -> tuple[slice, ...]:
    return tuple(place if k == axis else slice(None) for k in range(3))


def _part(ct: MetaTensor, axis: int, place: slice) -> MetaTensor:
    """A slab of the CT with the affine of its own first voxel."""
    affine = ct.affine.clone()
    affine[:3, 3] += affine[:3, axis] * place.start
    meta = {key: value for key, value in ct.meta.items() if key != "affine"}
    return MetaTensor(ct.as_tensor()[_at(axis, place)], affine=affine, meta=meta)


def _of_this_package(config: Any) -> Any:
    """The config with its `scripts.*` targets under this package's own name, be it `ravnet_bundle.scripts`.

    Otherwise its classes would be imported a second time, and an exception of theirs would not be one of ours.
    """
    if isinstance(config, Mapping):
        return {key: _of_this_package(value) for key, value in config.items()}
    if isinstance(config, list):
        return [_of_this_package(value) for value in config]
    if isinstance(config, str) and config.startswith("scripts."):
        return __package__ + config.removeprefix("scripts")
    return config
