"""A scan -> its volume, checked: headers first, then the voxels as they come."""

from __future__ import annotations

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
        hu: HU on its own grid, `(X, Y, Z)`, int16 where all are whole numbers, as nearly always, and else float32.
        affine: voxels to RAS world, mm, 4 x 4.
        meta: `original_affine`, the file's own where directions were straightened, `filename_or_obj`, the image file or
            the DICOM folder, `notes`, of what was found and done, joined by "; ", and `doubts`, why the affine may not
            be the CT's, joined alike.
    """

    hu: np.ndarray
    affine: np.ndarray
    meta: dict[str, Any]


def check_header(scan: Scan) -> None:
    """Raises `CTError` where a scan's headers alone show that it is no CT volume that can be segmented.

    That is: a format, shape, spacing or affine that is not a CT's; a DICOM series that is not one evenly spaced upright
    volume; voxels that the file cannot hold.
    """
    _open(scan)


def check_series(folder: Path) -> None:
    """Raises `CTError` unless a folder's DICOM files are one CT series that `check_header` passes."""
    check_header(only_scan(folder))


def files(scan: Scan) -> tuple[Path, ...]:
    """The files that a scan is read from: its own, the zip that holds them and, of a .mhd, that of the voxels too.

    Raises:
        CTError: a .mhd whose voxels are not in one file beside it.
    """
    if scan.kind == "dicom":
        return (scan.source,) if scan.source.is_file() else scan.files
    if scan.source.suffix.lower() != ".mhd":
        return scan.files
    return (*scan.files, stored(scan.source)[0].file)


def needs_itk(scan: Scan) -> bool:
    """Whether ITK reads it, which takes long to import; NIfTI and DICOM do without."""
    return scan.kind != "dicom" and not scan.files[0].name.lower().endswith((".nii", ".nii.gz"))


def read(scan: Scan | str | Path) -> Voxels:
    """A scan's voxels.

    Beside the volume itself, one slice is held (NRRD and MetaImage: the file's voxels too). Padding is set to air.

    Args:
        scan: what `find` found, or a path that names one.

    Raises:
        CTError: an input that `check_header` refuses, that cannot be decoded, or that is not finite or no CT by its HU.
    """
    scan = scan if isinstance(scan, Scan) else only_scan(scan)
    header, affine, notes, planes = _open(scan)
    tally = Hounsfield()
    with one_reason(scan.source):
        volume = np.empty(header.shape, np.int16, order="F")  # as files store it: each slice is one run of memory
        for z, plane in zip(range(header.shape[2]), planes, strict=True):  # every slice is filled, or it is an error
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
    """A scan's header, checked; its straight affine; notes; and its slices, of which none is read yet."""
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
