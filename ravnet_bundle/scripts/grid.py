"""A CT's own grid to the network's quiet slices, and the network's answer back to the CT's own grid.

Small, thin voxels are noisy. The network sees larger ones. Coarser sampling needs an average first: otherwise the noise
of single voxels remains. The average comes before the window: otherwise clipped noise shifts the mean. Both happen only
here.
"""

import math
import mmap
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform

from .geometry import axes_of, bounding_box, spacing_of

BLOCK = 48  # slices of the CT that are averaged at once, at most
AREA = 2**24  # pixels in all of them, at most: 16 slices of 1024 x 1024
SOFT_CLIP = 0.25  # of the window: HU are clipped this far beyond it before the average, see `ToGridd`


class ToGridd(MapTransform, InvertibleTransform):
    """HU on the CT's own grid, `(1, X, Y, Z)` along any axes -> the network's axial slices, `(1, X', Y', Z')`.

    Axes run towards R, A, S. Both grids fill the same box, edge to edge. So the new spacing is as near to the wanted
    one as whole voxels allow. Within a slice, pixels become `pixel_size`: coarser by an anti-aliased average
    (`torch.nn.functional.interpolate(antialias=True)`), finer by linear interpolation. Along the body, slices thinner
    than `slice_step` are averaged to slabs of `slab` mm every `slice_step` mm; thicker ones stay as they are. The first
    and the last slab are cut at the volume's end. Then the window becomes 0 to 1.

    Air and bone lie far outside the window. They would shift the average at the liver's edge. So HU are first clipped
    to the window plus a quarter of it on both sides: wide enough for noise, narrow enough for edges.

    Args:
        keys: volumes, MetaTensors, of any real type.
        pixel_size: mm within a slice; 0 or less: as it is.
        slice_step: mm between two slices; 0 or less: as it is.
        slab: mm along the body that a slice averages, at least `slice_step`.
        window_width, window_level: HU; without them (of labels) values stay as they are.
    """

    def __init__(
        self,
        keys: KeysCollection,
        pixel_size: float,
        slice_step: float,
        slab: float,
        window_width: float | None = None,
        window_level: float | None = None,
    ):
        super().__init__(keys)
        self.pixel_size, self.slice_step, self.slab = pixel_size, slice_step, slab
        self.window = None
        if window_width is not None and window_level is not None:
            self.window = (window_level - window_width / 2, window_level + window_width / 2)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.forward(result[key])
        return result

    def forward(self, ct: MetaTensor) -> MetaTensor:
        affine = np.asarray(ct.affine, dtype=float)
        axes, flipped = axes_of(affine)
        volume = ct.as_tensor()[0].permute(axes)  # directions stay for now: a flip would copy the CT
        spacing = spacing_of(affine)[axes]
        size = [_size(n, mm, self.pixel_size) for n, mm in zip(volume.shape[:2], spacing)]
        depth = min(volume.shape[2], _size(volume.shape[2], spacing[2], self.slice_step))
        weights = torch.from_numpy(_slabs(volume.shape[2], depth, self.slab / spacing[2])).to(volume.device)
        slices = torch.empty(depth, *size, dtype=torch.float32, device=volume.device)
        block = min(BLOCK, AREA // math.prod(volume.shape[:2]))
        for at in torch.arange(depth).split(max(1, block * depth // volume.shape[2])):
            share = weights[at]
            used = share.any(0).nonzero()
            first, last = int(used[0]), int(used[-1]) + 1
            part = volume[..., first:last].permute(2, 1, 0)  # mostly the order in memory, which is faster
            part = part.to(torch.float32, copy=True)
            if self.window:
                low, high = self.window
                margin = SOFT_CLIP * (high - low)
                part.clamp_(low - margin, high + margin)
            if depth != volume.shape[2]:
                part = (share[:, first:last] @ part.flatten(1)).unflatten(1, part.shape[1:])
            slices[at] = F.interpolate(part.mT[:, None], size, mode="bilinear", antialias=True)[:, 0]
        slices = slices.permute(1, 2, 0).flip([axis for axis in range(3) if flipped[axis]]).contiguous()
        if self.window:
            low, high = self.window
            slices = slices.sub_(low).div_(high - low).clamp_(0, 1)
        result = MetaTensor(slices[None], affine=_grid_affine(affine, ct.shape[1:], slices.shape), meta=_rest(ct))
        result.applied_operations = list(ct.applied_operations)
        self.push_transform(result, extra_info={"shape": tuple(ct.shape[1:]), "affine": affine.tolist()})
        return result

    def inverse(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Values on the network's grid, interpolated linearly in three dimensions, on the CT's own: float32."""
        result = dict(data)
        for key in self.key_iterator(result):
            values, trace = result[key], self.pop_transform(result[key])["extra_info"]
            affine = np.asarray(trace["affine"])
            restored = on_ct(values.as_tensor()[0], trace["shape"], affine)
            result[key] = MetaTensor(restored[None], affine=affine, meta=_rest(values))
            result[key].applied_operations = values.applied_operations
        return result


def on_ct(values: torch.Tensor, shape: Sequence[int], affine: np.ndarray) -> torch.Tensor:
    """Values on the network's grid `(X', Y', Z')` on that of a CT of this shape and affine: float32 `(X, Y, Z)`."""
    restored = torch.zeros(tuple(shape), dtype=torch.float32, device=values.device)
    for into, plane in _planes(values, restored, affine):
        into.copy_(plane)
    return restored


class FromGridd(MapTransform):
    """Probabilities on the network's grid, `(1, X', Y', Z')` -> the mask on the CT's own grid, `(1, X, Y, Z)` uint8.

    That is `ToGridd.inverse` and a threshold, plane by plane: probabilities of the CT's size are never held.

    Args:
        keys: probabilities.
        image_key: the output of `ToGridd`, which knows the CT's own grid.
        threshold: of the mask.
    """

    def __init__(self, keys: KeysCollection, image_key: str = "image", threshold: float = 0.5):
        super().__init__(keys)
        self.image_key, self.threshold = image_key, threshold

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        image = result[self.image_key]
        operations = reversed(image.applied_operations)
        trace = next((one["extra_info"] for one in operations if one["class"] == ToGridd.__name__), None)
        if trace is None:
            raise ValueError(f"FromGridd: {self.image_key!r} did not go through ToGridd.")
        affine = np.asarray(trace["affine"])
        for key in self.key_iterator(result):
            values = torch.as_tensor(result[key])[0]
            # as files and `reading.load` have it: each slice is one run of memory
            mask = torch.from_numpy(_zeros(trace["shape"][::-1])).to(values.device).permute(2, 1, 0)
            for into, plane in _planes(values, mask, affine, self.threshold):
                liver = plane >= self.threshold
                if box := bounding_box(liver.cpu().numpy()):
                    into[box].copy_(liver[box])
            result[key] = MetaTensor(mask[None], affine=affine, meta=_rest(image))
        return result


def _zeros(shape: Sequence[int]) -> np.ndarray:
    """uint8 zeros that take memory only where written, in pages of 4 kB; numpy has pages of 2 MB, several slices."""
    private = {"flags": mmap.MAP_PRIVATE} if hasattr(mmap, "MAP_PRIVATE") else {}  # Windows has nothing else
    return np.frombuffer(mmap.mmap(-1, math.prod(shape), **private), np.uint8).reshape(shape)


def _rest(volume: MetaTensor) -> dict:
    """Metadata without the affine, which is passed separately."""
    return {key: value for key, value in volume.meta.items() if key != "affine"}


def _size(number: int, mm: float, wanted: float) -> int:
    return max(1, round(number * mm / wanted)) if wanted > 0 else number


def _slabs(number: int, depth: int, width: float) -> np.ndarray:
    """How much each of `number` slices counts in each of `depth` slabs, float32 `(depth, number)`; rows add up to 1.

    A slice counts by the part of it that lies in the slab, which is `width` slices wide.
    """
    if depth == number:
        return np.eye(number, dtype=np.float32)
    step = number / depth
    middle, half = (np.arange(depth)[:, None] + 0.5) * step, max(width, step) / 2
    low, high = np.maximum(middle - half, 0), np.minimum(middle + half, number)
    start = np.arange(number)[None]
    share = np.clip(np.minimum(start + 1, high) - np.maximum(start, low), 0, None)
    return (share / share.sum(1, keepdims=True)).astype(np.float32)


def _planes(
    values: torch.Tensor, target: torch.Tensor, affine: np.ndarray, least: float | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Each axial plane of `target`, on the CT's grid, with its values; planes without values >= `least` are skipped."""
    axes, flipped = axes_of(affine)
    upright = target.permute(axes)
    values = values.flip([axis for axis in range(3) if flipped[axis]])
    depth, number = values.shape[2], upright.shape[2]
    for z in range(number):
        at = min(max((z + 0.5) * depth / number - 0.5, 0.0), depth - 1.0)  # beyond the outer slabs' middle: their value
        low = min(int(at), max(0, depth - 2))
        part = at - low
        plane = values[..., low] if part == 0 else torch.lerp(values[..., low], values[..., low + 1], part)
        if least is not None and not (plane >= least).any():  # interpolation cannot exceed these values
            continue
        plane = F.interpolate(plane[None, None].float(), upright.shape[:2], mode="bilinear")[0, 0]
        yield upright[..., z], plane


def _grid_affine(affine: np.ndarray, shape: tuple[int, ...], size: tuple[int, ...]) -> np.ndarray:
    """The affine of the grid of `size`, axes towards R, A, S, that fills the box of the CT's `shape`, edge to edge."""
    axes, flipped = axes_of(affine)
    own = np.eye(4)  # index on the new grid -> index on the CT's
    own[:3, :3] = 0
    for new, (axis, back) in enumerate(zip(axes, flipped)):
        scale = shape[axis] / size[new]
        own[axis, new] = -scale if back else scale
        own[axis, 3] = shape[axis] - 0.5 - scale / 2 if back else scale / 2 - 0.5
    return affine @ own
