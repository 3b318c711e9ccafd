"""Shared by SEG and RTSTRUCT: the mask in the slices of its series; the source's patient, study, dates and UIDs."""

import hashlib
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pydicom
from highdicom.spatial import ImageToReferenceTransformer
from pydicom.dataset import Dataset
from pydicom.uid import UID, generate_uid
from pydicom.valuerep import DA, TM

from ..geometry import LPS, spacing_of

LIVER_RGB = (221, 130, 101)  # the liver's colour in 3D Slicer's table of anatomy

LEAN = 0.005  # of the volume's diagonal: how far straightening by half a degree moves a corner
GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
REFERENCES = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
# Patient and study modules (PS3.3 C.7.1.1, C.7.2.1): required elements (may be empty), and common ones.
REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
COMMON = (
    "SpecificCharacterSet", "IssuerOfPatientID", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "StudyDescription", "PatientAge", "PatientSize", "PatientWeight",
)  # fmt: skip
OTHER = (
    "Modality", "NumberOfFrames", "FrameOfReferenceUID", "PositionReferenceIndicator", "SeriesNumber", "SeriesDate",
    "SeriesTime", "SliceThickness", "LossyImageCompression", "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)  # fmt: skip


class Software(NamedTuple):
    """Name and version of the algorithm, and the sha256 of the network's weights."""

    algorithm: str
    version: str
    weights: str


class Unwritable(ValueError):
    """No DICOM file can be made of a mask and series; the text is one line without patient data."""


def mask_on_slices(
    mask: np.ndarray, affine: np.ndarray, files: Sequence[str | os.PathLike]
) -> tuple[list[Dataset], np.ndarray]:
    """The series' headers, sorted along the slices' normal, and the mask in their pixels.

    The slices' positions and orientations tell how the mask's axes lie; the order of `files` does not matter.

    Args:
        mask: (X, Y, Z), bool or integers, 0 and 1.
        affine: (4, 4), voxel indices to RAS millimetres.
        files: all single-frame DICOM files of one series.

    Returns:
        N headers without pixels, and (N, rows, columns) uint8, a view of a bool or uint8 mask.

    Raises:
        OSError: a file cannot be read.
        Unwritable: the mask is not binary; a file is not one slice with a position; the slices are not the planes of
            the mask's grid.
    """
    if mask.dtype.kind not in "bui" or mask.min() < 0 or mask.max() > 1:
        raise Unwritable(f"values {mask.min()} to {mask.max()}, {mask.dtype}: expected a mask of 0 and 1.")
    headers = [_header(file) for file in files]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        if len({header[keyword].value for header in headers}) > 1:
            raise Unwritable(f"slices of more than one {keyword}; DICOM results refer to one; take the NIfTI mask.")
    rows, columns = headers[0].Rows, headers[0].Columns
    corners = np.array([[0, 0], [0, columns - 1], [rows - 1, 0], [rows - 1, columns - 1]], float)
    to_lps = LPS @ affine
    to_voxels = np.linalg.inv(to_lps)
    voxels = np.stack([to_world(header, corners) for header in headers]) @ to_voxels[:3, :3].T + to_voxels[:3, 3]
    along_row, along_column = voxels[0, 1] - voxels[0, 0], voxels[0, 2] - voxels[0, 0]
    column = int(np.abs(along_row).argmax())  # the mask's axes
    row = max({0, 1, 2} - {column}, key=lambda axis: abs(along_column[axis]))
    plane = 3 - row - column
    normal = np.cross(*np.reshape(np.asarray(headers[0].ImageOrientationPatient, float), (2, 3)))
    flips = {column: along_row[column] < 0, row: along_column[row] < 0, plane: normal @ to_lps[:3, plane] < 0}

    # The slices' corners as planes of the mask. Reading may have straightened the axes about the volume's centre: the
    # centre must agree, and the corners within that small angle.
    expected = np.empty_like(voxels)
    expected[..., plane] = np.rint(voxels[..., plane].mean(axis=1, keepdims=True))
    expected[..., column] = (columns - 1 - corners[:, 1]) if flips[column] else corners[:, 1]
    expected[..., row] = (rows - 1 - corners[:, 0]) if flips[row] else corners[:, 0]
    planes = expected[:, 0, plane].astype(int)
    spacing = spacing_of(affine)
    lean = LEAN * np.linalg.norm(spacing * mask.shape) / spacing
    if (
        any((header.Rows, header.Columns) != (mask.shape[row], mask.shape[column]) for header in headers)
        or np.abs((voxels - expected).mean(axis=(0, 1))).max() >= 0.5
        or (np.abs(voxels - expected) >= 0.5 + lean).any()
        or sorted(planes) != list(range(mask.shape[plane]))
    ):
        raise Unwritable(
            f"{len(headers)} slices of {rows} x {columns} pixels are not the planes of a mask "
            f"of shape {mask.shape}; give the mask on the series's grid, and all files of that series."
        )
    frames = mask.view(np.uint8) if mask.dtype == bool else mask.astype(np.uint8, copy=False)
    frames = np.flip(frames, tuple(axis for axis in flips if flips[axis])).transpose(plane, row, column)
    ordered = [headers[k] for k in np.argsort(-planes if flips[plane] else planes)]
    for header in ordered[1:]:  # anonymisers may give each slice its own
        header.FrameOfReferenceUID = ordered[0].FrameOfReferenceUID
    return ordered, frames


def to_world(header: Dataset, pixels: np.ndarray) -> np.ndarray:
    """Pixels `(n, 2)`, row and column, of a slice -> `(n, 3)` LPS millimetres (DICOM PS3.3 C.7.6.2.1.1)."""
    where = (header.ImagePositionPatient, header.ImageOrientationPatient, header.PixelSpacing)
    return ImageToReferenceTransformer(*where)(pixels[:, ::-1] + 0.5)  # its origin is the first pixel's corner


def copy_identity(header: Dataset, dataset: Dataset) -> None:
    """Copies patient and study from a slice unchanged: otherwise viewers separate the file from its study."""
    for keyword in (*REQUIRED, *COMMON):
        if header.get(keyword):
            dataset[keyword] = header[keyword]
        elif keyword in REQUIRED:
            setattr(dataset, keyword, "")


def without_clock(dataset: Dataset) -> None:
    """Deletes the times that highdicom takes from the clock."""
    del dataset.InstanceCreationDate, dataset.InstanceCreationTime
    for equipment in dataset.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in equipment:
            del equipment.ContributionDateTime


def source_date(header: Dataset) -> tuple[str, str]:
    """Date and time for a file made from a slice: of its series, else of its study, else 1 January 1900."""
    for level in ("Series", "Study"):
        date, time = str(header.get(f"{level}Date") or ""), str(header.get(f"{level}Time") or "000000")
        try:
            if DA(date) and TM(time):
                return date, time
        except ValueError:
            continue
    return "19000101", "000000"


def content_uid(headers: Sequence[Dataset], frames: np.ndarray, *about: str) -> UID:
    """A UID from a hash of slices, mask and `about`."""
    digest = hashlib.sha256()
    for header in headers:
        digest.update(f"{header.SOPInstanceUID} {header.FrameOfReferenceUID} ".encode())
    for k in np.flatnonzero(frames.any(axis=(1, 2))):
        digest.update(f"{k} ".encode() + np.packbits(frames[k]).tobytes())
    return generate_uid(entropy_srcs=[digest.hexdigest(), *about])


def _header(file: str | os.PathLike) -> Dataset:
    tags = [*GEOMETRY, *REFERENCES, *REQUIRED, *COMMON, *OTHER]
    with file.open("rb") if hasattr(file, "open") else open(file, "rb") as opened:  # a zip's member has its own `open`
        header = pydicom.dcmread(opened, stop_before_pixels=True, specific_tags=tags, force=True)
    for keyword in (*GEOMETRY, *COMMON, *OTHER):
        if not _sound(header, keyword):
            del header[keyword]
    missing = [keyword for keyword in (*REFERENCES, *GEOMETRY) if not header.get(keyword)]
    if missing or int(header.get("NumberOfFrames") or 1) > 1:
        raise Unwritable(
            f"{'no ' + missing[0] if missing else 'several frames'} in a slice; DICOM results need a series of single "
            "slices with positions and UIDs, so take the NIfTI mask."
        )
    if not header.get("FrameOfReferenceUID"):  # old series may lack it; our files need it
        header.FrameOfReferenceUID = generate_uid(entropy_srcs=[header.SeriesInstanceUID, "frame of reference"])
    return header


def _sound(header: Dataset, keyword: str) -> bool:
    """Whether an element is absent or valid: some exporters write "9.0mm" instead of a number."""
    if keyword not in header:
        return True
    try:
        element = header[keyword]
        if element.VR in ("DS", "IS") and not element.is_empty:
            np.asarray(element.value, float)
        return True
    except Exception:  # pydicom raises anything on a malformed element
        return False
