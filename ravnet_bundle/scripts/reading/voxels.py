"""From a scan to its checked volume: first the headers, then the voxels slice by slice."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from . import dicom_series, memory, nifti
from .checks import straighten
from .errors import one_reason
from .find import only_scan
from .hounsfield import Hounsfield
from .scan import Header, Scan
from .stored import stored


class Voxels(NamedTuple):
    """A CT that was read.

    Attributes:
        hu: HU on its own grid, `(X, Y, Z)`, int16 if all are whole numbers, else float32.
        affine: voxels to RAS world, mm, 4 x 4.
        meta: `original_affine`: the file's own, before straightening; `filename_or_obj`: image file or DICOM folder;
            `notes` and `doubts` (reasons why the affine may be wrong), each joined by "; ".
    """

    hu: np.ndarray
    affine: np.ndarray
    meta: dict[str, Any]


def check_header(scan: Scan) -> None:
    """Raises `CTError` if a scan's headers show that it cannot be segmented.

    Checked: format, shape, spacing, affine; that a DICOM series is one evenly spaced upright volume; that the file can
    hold the voxels.
    """
    _open(scan)


def check_series(folder: Path) -> None:
    """Raises `CTError` unless a folder's DICOM files are one CT series that `check_header` passes."""
    check_header(only_scan(folder))


def files(scan: Scan) -> tuple[Path, ...]:
    """The files that a scan is read from: its own, or their zip; for a .mhd also the file of its voxels.

    Raises:
        CTError: the voxels of a .mhd are not in one file beside it.
    """
    if scan.kind == "dicom":
        return (scan.source,) if scan.source.is_file() else scan.files
    if scan.source.suffix.lower() != ".mhd":
        return scan.files
    return (*scan.files, stored(scan.source)[0].file)


def needs_itk(scan: Scan) -> bool:
    """Whether ITK reads it (it takes long to import); NIfTI and DICOM do not need it."""
    return scan.kind != "dicom" and not scan.files[0].name.lower().endswith((".nii", ".nii.gz"))


def read(scan: Scan | str | Path) -> Voxels:
    """Reads a scan's voxels, slice by slice, and sets padding to air.

    Args:
        scan: of `find`, or a path to one.

    Raises:
        CTError: `check_header` refuses it, it cannot be decoded, or its values are not finite or not a CT's.
    """
    scan = scan if isinstance(scan, Scan) else only_scan(scan)
    header, affine, notes, planes = _open(scan)
    tally = Hounsfield()
    with one_reason(scan.source):
        volume = np.empty(header.shape, np.int16, order="F")  # as in files: a slice is one block of memory
        for z, plane in zip(range(header.shape[2]), planes, strict=True):  # a missing slice is an error
            if plane.shape != header.shape[:2]:
                raise ValueError("a slice of another size")
            whole = np.can_cast(plane.dtype, volume.dtype)
            hu = volume[..., z] if whole else np.empty(plane.shape, np.float32, order="F")
            with np.errstate(over="ignore", invalid="ignore"):
                hu[...] = plane
            tally.take(hu)
            if whole:
                continue
            if volume.dtype == np.int16 and not _fits(hu):
                before, volume = volume, np.empty(header.shape, np.float32, order="F")
                volume[..., :z] = before[..., :z]
            volume[..., z] = hu
    tally.check(scan.label)
    meta = {
        "filename_or_obj": str(scan.source),
        "original_affine": header.affine,
        "original_channel_dim": "no_channel",
        "space": "RAS",
        "spatial_shape": np.asarray(header.shape),
        "notes": "; ".join((*scan.notes, *notes, *tally.notes)),
        "doubts": "; ".join(header.doubts),
    }
    return Voxels(volume, affine, meta)


def _fits(hu: np.ndarray) -> bool:
    """Whether all values are whole numbers of 16 bits."""
    return bool((np.rint(hu) == hu).all()) and hu.min() >= -(2**15) and hu.max() < 2**15


def _open(scan: Scan) -> tuple[Header, np.ndarray, tuple[str, ...], Iterator[np.ndarray]]:
    """A scan's checked header, its straightened affine, notes, and an iterator of its slices."""
    if scan.kind == "dicom":
        reader: ModuleType = dicom_series
    elif scan.kind == "memory":
        reader = memory
    elif not needs_itk(scan):
        reader = nifti
    else:
        from . import metaimage

        reader = metaimage
    with one_reason(scan.source):
        header = reader.header(scan)
        affine, notes = straighten(header.affine, header.shape, scan.label)
    return header, affine, (*header.notes, *notes), reader.planes(scan, header)
