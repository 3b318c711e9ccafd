"""From one CT to Python objects; `segment` does this for each study before it writes."""

from __future__ import annotations

import sys
import threading
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel as nib
import numpy as np

from ..assessment import Limits, Verdict, judge, measure, observe
from ..inference.provenance import software
from ..reading import Voxels, in_memory, is_simpleitk, read
from .opening import check_device, opened
from .options import Options

if TYPE_CHECKING:
    from ..inference.pipeline import Segmentation


class Examined(NamedTuple):
    """A segmented CT.

    Attributes:
        found: mask and probabilities.
        measures: of `assessment.measure` and `assessment.observe`.
        verdict: of `assessment.judge`.
        notes: remarks of the reading.
    """

    found: Segmentation
    measures: dict[str, Any]
    verdict: Verdict
    notes: list[str]


class Liver:
    """The liver of one CT. `mask` and `probability` are images of the input's kind, on its grid.

    A path or a nibabel image gives a `Nifti1Image`, a SimpleITK image another one, a MetaTensor one of the same shape,
    an array with an affine an array `(X, Y, Z)`.

    Attributes:
        measures: volume in ml, HU and all others of `measures.json`.
        verdict: "ok", "review" or "reject".
        reasons: of the verdict, each a sentence.
        notes: remarks of the reading, such as padding that was changed.
    """

    def __init__(self, image: Any, ct: Voxels, examined: Examined):
        self._image, self._affine, self._own = image, ct.affine, np.asarray(ct.meta["original_affine"])
        self._found = examined.found
        self.measures, self.notes = examined.measures, tuple(examined.notes)
        self.verdict, self.reasons = examined.verdict.level, examined.verdict.reasons

    @cached_property
    def mask(self) -> Any:
        """0 and 1, uint8."""
        return self._as_given(self._found.mask)

    @cached_property
    def probability(self) -> Any:
        """0 to 1, float32, after the three-dimensional steps.

        The mask is where the probability is at least 0.5. Values are stored as float16, so 0.5 has an error of 2e-4.
        """
        import torch

        from ..grid import on_ct

        delivered = torch.from_numpy(np.ascontiguousarray(self._found.delivered))
        return self._as_given(on_ct(delivered, self._found.mask.shape, self._affine).numpy())

    def _as_given(self, array: np.ndarray) -> Any:
        image = self._image
        if is_simpleitk(image):
            result = sys.modules["SimpleITK"].GetImageFromArray(array.T)
            result.CopyInformation(image)
            return result
        if hasattr(image, "as_tensor"):
            import torch
            from monai.data import MetaTensor

            return MetaTensor(torch.from_numpy(array).reshape(image.shape), affine=image.affine)
        return array if isinstance(image, tuple) else nib.Nifti1Image(array, self._own)


class Segmenter:
    """Segments CTs and returns objects; the weights are loaded once, and nothing is written.

    ```python
    from ravnet_bundle import Segmenter

    liver = Segmenter()("ct.nii.gz")
    print(liver.measures["volume_ml"], liver.verdict, liver.reasons)
    ```

    Threads may share one: they take turns. Each process needs its own; start processes by "spawn", because PyTorch's
    threads do not survive a fork.

    Args:
        fast: larger pixels: faster, a little coarser.
        weights: a file of other weights of this network.
        device: "cpu", "cuda", "cuda:1", "mps"; by default the GPU if there is one.

    Raises:
        ValueError: no such device or file of weights; weights of another network.
    """

    def __init__(self, *, fast: bool = False, weights: str | Path | None = None, device: str | None = None):
        options = Options(fast=fast, weights=None if weights is None else str(weights), device=device)
        check_device(options.device)
        self.pipeline, self.limits = opened(options), Limits.load()
        self.sha256 = software(options.weights)["weights"]
        self.turn = threading.Lock()

    def __call__(self, image: Any, **body: Any) -> Liver:
        """Segments a CT in HU.

        Args:
            image: a path (file, DICOM folder or zip), a nibabel or SimpleITK image, a MetaTensor `(X, Y, Z)` or
                `(1, X, Y, Z)`, or `(array, affine)`, `(X, Y, Z)` and voxels to RAS millimetres.
            **body: `native`, `height`, `weight`, `bsa`, as of `segment`.

        Raises:
            TypeError: an unknown kind of image, or an unknown option.
            CTError: the image cannot be segmented; a `ValueError` of one line.
        """
        path = isinstance(image, (str, Path))
        ct = read(image if path else in_memory(image))
        return Liver(None if path else image, ct, self.examine(ct, Options(**body)))

    def examine(self, ct: Voxels, options: Options) -> Examined:
        """Segments a CT from `reading.read`, measures the liver and gives the verdict."""
        from ..reading.tensor import as_tensor

        with self.turn:
            found = self.pipeline(as_tensor(ct))
            measures = measure(ct.hu, found.mask.view(bool), ct.affine, **options.body)
            network = (found.image, found.answer, found.delivered, found.affine)
            seen = observe(measures, ct.affine, *network, self.pipeline.predict, self.limits.temperature)
        found = found._replace(image=np.empty(0))  # nobody asks for it any more
        notes, doubts = ([text for text in ct.meta[key].split("; ") if text] for key in ("notes", "doubts"))
        doubts += [found.note] if found.note else []
        doubts += self.limits.doubts(self.sha256, self.pipeline.grid)
        return Examined(found, measures | seen, judge(seen, self.limits, doubts), notes)
