"""Writes a mask as a DICOM Segmentation of its series."""

import logging
import os
from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from ..files import atomic
from . import dicom_source
from .dicom_source import Software, content_uid, copy_identity, mask_on_slices, source_date, to_world, without_clock

logging.getLogger("highdicom").setLevel(logging.WARNING)  # at lower levels it logs the source's UIDs


def write_seg(
    mask: np.ndarray,
    affine: np.ndarray,
    files: Sequence[str | os.PathLike],
    path: str | os.PathLike,
    software: Software,
) -> None:
    """Writes a BINARY DICOM SEG with one segment, the liver (SNOMED CT 10200004), by highdicom.

    It has the source's patient, study and frame of reference, refers to every slice of the series, and holds the frames
    with liver. An empty mask gives one empty frame at the first slice, because a SEG needs a frame.

    Args:
        mask: (X, Y, Z), bool or integers, 0 and 1, on the grid of the series.
        affine: (4, 4), voxel indices to RAS millimetres.
        files: all files of the series, one slice each, in any order.
        path: the file to write.
        software: its weights are kept as the device's serial number.

    Raises:
        OSError: a file cannot be read or written.
        Unwritable: the mask is not binary or not on the series' grid; enhanced multiframe files; slices without UIDs
            or position.
    """
    headers, frames = mask_on_slices(mask, affine, files)
    date, time = source_date(headers[0])
    uid = content_uid(headers, frames, "SEG", *software)
    with disable_value_validation():  # the source's patient data are copied unchanged
        sources = _sources(headers)
        found = bool(frames.any())
        shown = len(sources) if found else 1
        seg = hd.seg.Segmentation(
            source_images=sources[:shown],
            further_source_images=sources[shown:],
            pixel_array=frames[:shown],
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_liver(software)],
            series_instance_uid=generate_uid(entropy_srcs=[uid, "series"]),
            series_number=int(headers[0].get("SeriesNumber") or 0) + 1000,
            sop_instance_uid=uid,
            instance_number=1,
            manufacturer=software.algorithm,
            manufacturer_model_name=software.algorithm,
            software_versions=software.version,
            device_serial_number=software.weights,
            omit_empty_frames=found,
            specific_character_set=None,
            content_label="LIVER",
            content_description="Liver, segmented automatically; for research use only",
            series_description=f"Liver segmentation, {software.algorithm}",
            content_date=date,
            content_time=time,
            series_date=date,
            series_time=time,
        )
        copy_identity(headers[0], seg)
        without_clock(seg)
        # highdicom chooses these at random
        for item in (*seg.DimensionOrganizationSequence, *seg.DimensionIndexSequence):
            item.DimensionOrganizationUID = generate_uid(entropy_srcs=[uid, "dimensions"])
        with atomic(path) as file:
            seg.save_as(file, enforce_file_format=True)


def _sources(headers: Sequence[Dataset]) -> list[Dataset]:
    """The slices as highdicom needs them: equal orientation, the true distance, no patient data to validate."""
    first, last = (to_world(header, np.zeros((1, 2)))[0] for header in (headers[0], headers[-1]))
    spacing = float(np.linalg.norm(last - first)) / max(len(headers) - 1, 1)
    sources = []
    for header in headers:
        own = {
            "ImageOrientationPatient": headers[0].ImageOrientationPatient,
            "PixelSpacing": headers[0].PixelSpacing,
            "SpacingBetweenSlices": f"{spacing:.6g}",
            "SliceThickness": header.get("SliceThickness") or f"{spacing:.6g}",
            **{keyword: "" for keyword in dicom_source.REQUIRED if keyword != "StudyInstanceUID"},
        }
        source = Dataset()
        for element in header:
            if element.keyword not in (*own, *dicom_source.COMMON):
                source.add(element)
        for keyword, value in own.items():
            setattr(source, keyword, value)
        sources.append(source)
    return sources


def _liver(software: Software) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Liver",
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=codes.SCT.Liver,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=software.algorithm, version=software.version, family=codes.DCM.ArtificialIntelligence
        ),
        display_color=hd.color.CIELabColor.from_rgb(*dicom_source.LIVER_RGB),
    )
