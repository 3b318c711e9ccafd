"""Corrects the mask in three dimensions by a random walk along tissue."""

import math
from collections.abc import Hashable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from monai.config import KeysCollection
from monai.transforms import MapTransform
from scipy.sparse.linalg import LinearOperator, cg

from ..geometry import bounding_box, dilated, eroded, spacing_of

GRID_MM = 3.5  # voxels of the walk; the means over them are less noisy than the CT's own
REACH_MM = 40  # around the mask: the walk stays within this distance
GAVE_UP = "The random walk was not used: the liver has too few visible edges."
MOST = 1 / 3  # of the mask's size; a larger change is not a correction: the liver has no visible edges


class TissueDiffusiond(MapTransform):
    """Removes thick parts of the mask, or adds thick parts to it, if their tissue says so.

    A network of axial slices may call a mass liver in one slice and not in the next, or miss the end of a lobe over the
    spleen. Here a random walk starts from each voxel. It moves easily to similar tissue and rarely across an edge. At
    each step it may stop. x is the share of walks that stop in the mask (Grady, Multilabel Random Walker Image
    Segmentation Using Prior Models, CVPR 2005; here with two labels and the mask as the prior). So
    (L + 1 / l^2) x = m / l^2 for the mask m. The Laplacian L has the weights
    exp(-(difference of brightness / edge)^2) / distance^2. scipy's conjugate gradients solve this on a grid of about
    3.5 mm, from the mask to 40 mm around it.

    Only thick parts change: regions where x and the mask differ and that can hold a ball of `radius_mm`. The rest of
    the liver's border stays as the network drew it. Probabilities become 0 in removed parts and 1 in added parts. If
    these parts are more than a third of the mask, nothing changes, and `<key>_note` says why. This happens in images
    without edges.

    Args:
        keys: probabilities, `(1, X, Y, Z)`.
        image_key: the image on their grid, `(1, X, Y, Z)`, as the network sees it.
        length_mm: l, how far a walk goes in even tissue, mm; 0: nothing changes.
        edge: difference of brightness between neighbours on that grid, in the image's units, that lets 1/e of the walks
            pass; the default is 4 HU in a window of 200 HU.
        radius_mm: of the ball, mm.
        threshold: of the mask.
    """

    def __init__(
        self,
        keys: KeysCollection,
        image_key: str = "image",
        length_mm: float = 60.0,
        edge: float = 0.02,
        radius_mm: float = 2.5,
        threshold: float = 0.5,
    ):
        super().__init__(keys)
        self.image_key, self.length_mm, self.edge = image_key, length_mm, edge
        self.radius_mm, self.threshold = radius_mm, threshold

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[self.image_key]
            spacing = spacing_of(image.affine)
            found = (torch.as_tensor(result[key])[0] >= self.threshold).cpu().numpy()
            box = bounding_box(found, [math.ceil(REACH_MM / mm) for mm in spacing])
            if not self.length_mm or box is None:
                continue
            mask, seen = found[box], torch.as_tensor(image)[0][box].cpu().float()
            liver = self.walked(seen[None], torch.from_numpy(mask)[None].float(), spacing) >= 0.5
            out, into = (self.thick(part, spacing) for part in (mask & ~liver, ~mask & liver))
            if out.sum() + into.sum() > MOST * mask.sum():
                result[f"{key}_note"] = GAVE_UP
                continue
            result[key] = result[key].clone()
            for part, value in ((out, 0.0), (into, 1.0)):
                result[key][0][box].masked_fill_(torch.from_numpy(part).to(result[key].device), value)
        return result

    def walked(self, image: torch.Tensor, mask: torch.Tensor, spacing: np.ndarray) -> np.ndarray:
        """The share of walks from each voxel that end in the mask: `(1, X, Y, Z)` each -> `(X, Y, Z)`."""
        shape = mask.shape[1:]
        factors = [min(n, max(1, round(GRID_MM / mm))) for n, mm in zip(shape, spacing)]
        image, mask = (F.avg_pool3d(x, factors, ceil_mode=True, count_include_pad=False) for x in (image, mask))
        share = random_walk(image[0].numpy(), mask[0].numpy(), spacing * factors, self.length_mm, self.edge)
        share = F.interpolate(
            torch.from_numpy(share)[None, None], scale_factor=[*map(float, factors)], mode="trilinear"
        )
        return share[0, 0][tuple(map(slice, shape))].numpy()

    def thick(self, part: np.ndarray, spacing: np.ndarray) -> np.ndarray:
        """The part's opening by the ball."""
        if not part.any():
            return part
        core = eroded(part, spacing, self.radius_mm)
        return part & dilated(core, spacing, self.radius_mm) if core.any() else core


def random_walk(image: np.ndarray, prior: np.ndarray, spacing: np.ndarray, length_mm: float, edge: float) -> np.ndarray:
    """Solves (L + 1 / l^2) x = prior / l^2 on a grid: float32 `(X, Y, Z)`, between the prior's least and greatest.

    Args:
        image: float32, brightness of a voxel.
        prior: float32, its probability before the walk.
        spacing: of the grid, mm.
        length_mm: l, mm.
        edge: see `TissueDiffusiond`.
    """
    shape, screening = image.shape, np.float32(length_mm**-2)
    steps = []  # from each voxel to its neighbour along an axis: how much later that lies in memory, and the weights
    for axis, mm in enumerate(spacing):
        weight = np.zeros(shape, np.float32)  # 0 at the grid's end, without a neighbour
        along = np.moveaxis(image, axis, 0)
        np.moveaxis(weight, axis, 0)[:-1] = np.exp(-(((along[1:] - along[:-1]) / edge) ** 2)) / np.float32(mm**2)
        later = math.prod(shape[axis + 1 :])
        steps.append((later, weight.ravel()[:-later]))
    diagonal = np.full(image.size, screening)
    for later, weight in steps:
        diagonal[:-later] += weight
        diagonal[later:] += weight
    flow = np.empty_like(diagonal)

    def matrix(x: np.ndarray) -> np.ndarray:
        x = x.ravel()
        y = screening * x
        for later, weight in steps:
            some = np.subtract(x[:-later], x[later:], out=flow[:-later])
            some *= weight
            y[:-later] += some
            y[later:] -= some
        return y

    size, inverse = (prior.size, prior.size), 1 / diagonal
    share, _ = cg(  # the bound of 150 steps is for time: without convergence the mask is just corrected less
        LinearOperator(size, matrix, dtype=np.float32),
        (screening * prior).ravel(),
        x0=prior.ravel(),
        rtol=1e-3,
        maxiter=150,
        M=LinearOperator(size, lambda x: inverse * x.ravel(), dtype=np.float32),
    )
    return share.reshape(shape)
