"""Writes a volume as a DICOM CT series, for tests: a folder as a scanner exports it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gdcm
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write_series(
    image: np.ndarray,
    affine: np.ndarray,
    folder: Path,
    modality: str = "CT",
    change: Callable[[int, Dataset], None] | None = None,
) -> list[Path]:
    """Writes HU `(X, Y, Z)` with any orthogonal RAS affine, one file a slice along Z (stored + 1024).

    SliceThickness is deliberately not the slices' spacing, as in many real series.

    Args:
        image, affine: the volume.
        folder: made if it is not there.
        modality: as the tag.
        change: what is done to each slice's dataset, given its index, before it is written.

    Returns:
        the files, by index along Z.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / spacing
    series, study, frame = generate_uid(), generate_uid(), generate_uid()
    files = []
    for z in range(image.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds = Dataset()
        ds.file_meta = meta
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.Modality, ds.PatientID, ds.PatientName, ds.SeriesDate = modality, "phantom", "phantom", "20260101"
        ds.ImageType, ds.SeriesNumber = ["ORIGINAL", "PRIMARY", "AXIAL"], 2
        ds.InstanceNumber = image.shape[2] - z  # against the order in space, as scanners may
        ds.ImagePositionPatient = [f"{v:.6f}" for v in (lps @ [0, 0, z, 1])[:3]]
        ds.ImageOrientationPatient = [f"{v:.6f}" for v in (*directions[:, 0], *directions[:, 1])]
        ds.PixelSpacing = [f"{spacing[1]:.6f}", f"{spacing[0]:.6f}"]
        ds.SliceThickness = f"{spacing[2] * 1.6:.6f}"
        ds.Rows, ds.Columns = image.shape[1], image.shape[0]
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.RescaleSlope, ds.RescaleIntercept = "1", "-1024"
        ds.PixelData = (image[:, :, z].T.astype(np.int32) + 1024).clip(0, 65535).astype(np.uint16).tobytes()
        if change:
            change(z, ds)
        files.append(folder / f"IM{z:04d}")
        ds.save_as(files[-1], enforce_file_format=True)
    return files


def rewrite(file: Path, **changes: object) -> None:
    """Sets a file's tags, by keyword; None takes one out."""
    ds = pydicom.dcmread(file)
    for name, value in changes.items():
        if value is None:
            delattr(ds, name)
        else:
            setattr(ds, name, value)
    ds.save_as(file)


def compress(file: Path, syntax: str) -> None:
    """Compresses a file's pixels by GDCM; `syntax` is one of `gdcm.TransferSyntax`'s names."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(file))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
