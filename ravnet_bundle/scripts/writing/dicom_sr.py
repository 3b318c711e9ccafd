"""Writes a liver's measures as a DICOM Structured Report (TID 1500) that refers to the DICOM SEG."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import pydicom
from highdicom.sr import CodedConcept
from pydicom.config import disable_value_validation
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from ..files import atomic
from .dicom_source import Software, copy_identity, without_clock

OURS = "99RAVNET"  # coding scheme of our own codes
ML = CodedConcept("mL", "UCUM", "milliliter")
CT = CodedConcept("77477000", "SCT", "Computed tomography")
VERDICT = CodedConcept("verdict", OURS, "Verdict on an automatic segmentation")


def write_sr(
    seg: Path,
    path: str | os.PathLike,
    software: Software,
    *,
    measures: Mapping[str, Any],
    verdict: str,
    meaning: str,
    reasons: Sequence[str],
) -> None:
    """Writes a Comprehensive SR, by highdicom, in the patient and study of a SEG; it refers to segment 1 of the SEG.

    It holds the liver's volume with its standard deviation (ml), the mean HU, and the verdict with its reasons as text.

    Args:
        seg: the file of the SEG.
        path: the file to write.
        software: its weights are kept as the device's serial number.
        measures: of `assessment.measure`.
        verdict: "ok", "review" or "reject".
        meaning: of the verdict, at most 64 characters.
        reasons: of the verdict, each a sentence.

    Raises:
        OSError: a file cannot be read or written.
    """
    with disable_value_validation():
        source = pydicom.dcmread(seg)
        algorithm, version, weights = software
        about = [str(source.SOPInstanceUID), repr(sorted(measures.items())), verdict, *reasons, version, weights]
        uid = generate_uid(entropy_srcs=["SR", *about])
        observer = hd.sr.ObserverContext(
            codes.DCM.Device,
            hd.sr.DeviceObserverIdentifyingAttributes(
                uid=generate_uid(entropy_srcs=software),
                name=algorithm,
                manufacturer_name=algorithm,
                model_name=f"{algorithm} {version}",
                serial_number=weights,
            ),
        )
        report = hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(observer_device_context=observer),
            procedure_reported=CT,
            imaging_measurements=[_group(source, measures, CodedConcept(verdict, OURS, meaning), reasons, uid)],
            title=codes.DCM.ImagingMeasurementReport,
        )
        result = hd.sr.ComprehensiveSR(
            evidence=[source],
            content=report[0],
            series_instance_uid=generate_uid(entropy_srcs=[uid, "series"]),
            series_number=int(source.SeriesNumber) + 1,
            sop_instance_uid=uid,
            instance_number=1,
            manufacturer=algorithm,
            is_complete=True,
            series_description=f"Liver measures, {algorithm}; for research use only",
        )
        copy_identity(source, result)
        without_clock(result)
        for level in ("Content", "Series"):
            setattr(result, f"{level}Date", source.ContentDate)
            setattr(result, f"{level}Time", source.ContentTime)
        with atomic(path) as file:
            result.save_as(file, enforce_file_format=True)


def _group(
    source: pydicom.Dataset, measures: Mapping[str, Any], verdict: CodedConcept, reasons: Sequence[str], uid: str
) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    numbers = [
        hd.sr.Measurement(codes.SCT.Volume, measures["volume_ml"], ML),
        hd.sr.Measurement(
            codes.SCT.Volume, measures["volume_uncertainty_ml"], ML, derivation=codes.SCT.StandardDeviation
        ),
    ]
    if measures["hu_mean"] is not None:
        unit = codes.UCUM.HounsfieldUnit
        numbers.append(
            hd.sr.Measurement(codes.DCM.AttenuationCoefficient, measures["hu_mean"], unit, derivation=codes.SCT.Mean)
        )
    (series,) = {item.SeriesInstanceUID for item in source.ReferencedSeriesSequence}
    group = hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(generate_uid(entropy_srcs=[uid, "liver"]), "Liver"),
        referenced_segment=hd.sr.ReferencedSegment(
            source.SOPClassUID, source.SOPInstanceUID, 1, source_series=hd.sr.SourceSeriesForSegmentation(series)
        ),
        finding_type=codes.SCT.Liver,
        measurements=numbers,
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(VERDICT, verdict)],
    )
    words = " ".join([*reasons, "For research use only: not a medical device."])
    comment = hd.sr.TextContentItem(codes.DCM.Comment, words, hd.sr.RelationshipTypeValues.CONTAINS)
    group[0].ContentSequence.append(comment)
    return group
