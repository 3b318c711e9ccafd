"""One CT in, objects out: what `segment` does to each study before anything is written."""

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
    """What is known of a CT once it was segmented.

    Attributes:
        found: mask and probabilities.
        measures: see `assessment.measure`, and what `assessment.observe` saw beside them.
        verdict: see `assessment.judge`.
        notes: what reading did to the CT or set aside.
    """

    found: Segmentation
    measures: dict[str, Any]
    verdict: Verdict
    notes: list[str]


class Liver:
    """The liver of one CT. `mask` and `probability` are images of the input's kind, on its grid.

    That is: of a path or a nibabel image a `Nifti1Image`, of a SimpleITK image one of its own, of a MetaTensor one of
    the same shape, of an array with an affine an array `(X, Y, Z)`.

    Attributes:
        measures: volume in ml, HU and the others of `measures.json`, by the same names.
        verdict: "ok", "review" or "reject".
        reasons: of the verdict, each a sentence.
        notes: what was done to the CT as it was read.
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
        """0 to 1, float32, after the three-dimensional steps: the mask is where it is at least 0.5."""
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
    """Segments one CT after the other, with weights that are loaded once; writes nothing.

    ```python
    from ravnet_bundle import Segmenter

    liver = Segmenter()("ct.nii.gz")
    print(liver.measures["volume_ml"], liver.verdict, liver.reasons)
    ```

    Threads may share one: they take turns. Each process needs its own; start processes by "spawn", as PyTorch's threads
    do not survive a fork.

    Args:
        fast: larger pixels, quicker, a little coarser.
        weights: a file of weights of this network, instead of the bundle's own.
        device: "cpu", "cuda", "cuda:1", "mps"; by default the GPU if there is one.

    Raises:
        ValueError: the device is not here; no such file of weights, or not this network's.
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
            TypeError: no such image or option.
            CTError: an image that is no CT that can be segmented; a `ValueError` of one line.
        """
        path = isinstance(image, (str, Path))
        ct = read(image if path else in_memory(image))
        return Liver(None if path else image, ct, self.examine(ct, Options(**body)))

    def examine(self, ct: Voxels, options: Options) -> Examined:
        """Segments a CT that `reading.read` has read, measures its liver and judges it."""
        from ..reading.tensor import as_tensor

        with self.turn:
            found = self.pipeline(as_tensor(ct))
            measures = measure(ct.hu, found.mask, ct.affine, **options.body)
            network = (found.image, found.answer, found.delivered, found.affine)
            seen = observe(measures, ct.affine, *network, self.pipeline.predict, self.limits.temperature)
        found = found._replace(image=np.empty(0))  # nobody asks for it any more
        notes, doubts = ([text for text in ct.meta[key].split("; ") if text] for key in ("notes", "doubts"))
        doubts += [found.note] if found.note else []
        doubts += self.limits.doubts(self.sha256, self.pipeline.grid)
        return Examined(found, measures | seen, judge(seen, self.limits, doubts), notes)
