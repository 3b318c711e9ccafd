"""Writes a mask as an RT Structure Set: contours on the slices of its series."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid
from scipy.spatial import cKDTree
from skimage.measure import find_contours, label, regionprops

from ..files import atomic
from .dicom_source import LIVER_RGB, Software, content_uid, copy_identity, mask_on_slices, source_date, to_world

STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"  # of RT Referenced Study Sequence, PS3.3 C.8.8.5


def write_rtstruct(
    mask: np.ndarray,
    affine: np.ndarray,
    files: Sequence[str | os.PathLike],
    path: str | os.PathLike,
    software: Software,
) -> None:
    """Writes an RTSTRUCT with one ROI, the liver: CLOSED_PLANAR contours midway between voxels inside and outside.

    A point-in-polygon test at the pixels' centres gives exactly the mask. Each 4-connected part of a slice is one
    contour; holes are keyholes (channels without width, PS3.3 C.8.8.6.3), which all programs read alike, whether they
    combine contours by union or by XOR. An empty mask gives an ROI without contours.

    Args and errors are those of `write_seg`.
    """
    headers, frames = mask_on_slices(mask, affine, files)
    date, time = source_date(headers[0])
    uid = content_uid(headers, frames, "RTSTRUCT", *software)
    with disable_value_validation():  # the source's patient data are copied unchanged
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        # Implicit VR, because explicit VR limits ContourData to 64 KB.
        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        ds.SOPClassUID = RTStructureSetStorage
        ds.SOPInstanceUID = uid
        copy_identity(headers[0], ds)

        ds.Modality = "RTSTRUCT"
        ds.SeriesInstanceUID = generate_uid(entropy_srcs=[uid, "series"])
        ds.SeriesNumber = int(headers[0].get("SeriesNumber") or 0) + 2000
        ds.SeriesDescription = f"Liver contours, {software.algorithm}"
        ds.SeriesDate, ds.SeriesTime, ds.OperatorsName = date, time, ""
        ds.Manufacturer = ds.ManufacturerModelName = software.algorithm
        ds.SoftwareVersions, ds.DeviceSerialNumber = software.version, software.weights
        ds.FrameOfReferenceUID = headers[0].FrameOfReferenceUID
        ds.PositionReferenceIndicator = headers[0].get("PositionReferenceIndicator", "")
        ds.InstanceNumber = 1

        ds.StructureSetLabel = "LIVER"
        ds.StructureSetDescription = "Liver, segmented automatically; for research use only"
        ds.StructureSetDate, ds.StructureSetTime = date, time
        ds.ReferencedFrameOfReferenceSequence = [_references(headers)]
        ds.StructureSetROISequence = [
            _item(
                ROINumber=1,
                ReferencedFrameOfReferenceUID=headers[0].FrameOfReferenceUID,
                ROIName="Liver",
                ROIGenerationAlgorithm="AUTOMATIC",
                ROIGenerationDescription=f"{software.algorithm} {software.version}",
            )
        ]
        contours = [
            _contour(header, points)
            for header, frame in zip(headers, frames)
            if frame.any()
            for points in outlines(frame)
        ]
        roi = _item(ROIDisplayColor=list(LIVER_RGB), ReferencedROINumber=1)
        if contours:
            roi.ContourSequence = contours
        ds.ROIContourSequence = [roi]
        liver = codes.SCT.Liver
        code = _item(CodeValue=liver.value, CodingSchemeDesignator="SCT", CodeMeaning=liver.meaning)
        ds.RTROIObservationsSequence = [
            _item(
                ObservationNumber=1,
                ReferencedROINumber=1,
                RTROIIdentificationCodeSequence=[code],
                RTROIInterpretedType="ORGAN",
                ROIInterpreter="",
            )
        ]
        ds.ApprovalStatus = "UNAPPROVED"
        with atomic(path) as file:
            ds.save_as(file, enforce_file_format=True)


def outlines(frame: np.ndarray) -> Iterator[np.ndarray]:
    """The outline `(n, 2)`, row and column, of each 4-connected part of a binary (rows, columns), holes keyholed."""
    for part in regionprops(label(frame, connectivity=1)):
        corner = np.array(part.bbox[:2]) - 1  # a rim of zeros closes every contour
        # By default find_contours joins pixels only over edges, like the labels: one outer contour per part.
        contours = [_turns(closed[:-1]) for closed in find_contours(np.pad(part.image, 1), 0.5)]
        contours.sort(key=lambda c: np.ptp(c[:, 0]) * np.ptp(c[:, 1]), reverse=True)
        outline, holes = contours[0], contours[1:]
        around = cKDTree(outline)
        for hole in sorted(holes, key=lambda hole: around.query(hole)[0].min()):
            distances, nearest = cKDTree(outline).query(hole)
            there = int(distances.argmin())
            here = int(nearest[there])
            outline = np.concatenate([outline[: here + 1], hole[there:], hole[: there + 1], outline[here:]])
        yield outline + corner


def _turns(polygon: np.ndarray) -> np.ndarray:
    """A polygon without vertices on straight lines."""
    before, after = polygon - np.roll(polygon, 1, axis=0), np.roll(polygon, -1, axis=0) - polygon
    return polygon[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]


def _contour(header: Dataset, outline: np.ndarray) -> Dataset:
    item = _item(ContourImageSequence=[_reference(header)])
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(outline)
    item.ContourData = [f"{value:.4f}" for value in to_world(header, outline).ravel()]
    return item


def _references(headers: Sequence[Dataset]) -> Dataset:
    series = _item(
        SeriesInstanceUID=headers[0].SeriesInstanceUID, ContourImageSequence=[_reference(header) for header in headers]
    )
    study = _item(
        ReferencedSOPClassUID=STUDY_MANAGEMENT,
        ReferencedSOPInstanceUID=headers[0].StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=headers[0].FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _reference(header: Dataset) -> Dataset:
    return _item(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)


def _item(**elements: Any) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item
