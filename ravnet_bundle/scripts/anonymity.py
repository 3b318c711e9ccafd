"""Names of results that say nothing of the patient."""

from __future__ import annotations

import hashlib
import re

import pydicom

from .reading import Scan

IDENTITY = ("PatientName", "PatientID", "OtherPatientIDs", "PatientBirthDate", "AccessionNumber", "StudyID")
IDENTITY += ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "StudyInstanceUID", "SeriesInstanceUID")
IDENTITY += ("SOPInstanceUID", "InstitutionName", "ReferringPhysicianName")
SHORTEST = 3  # characters; shorter parts of a name are found in any word


def public_name(scan: Scan) -> str:
    """The scan's name, or a hash in its place where it repeats what the DICOM header says of the patient.

    Names come from files and folders, which hospitals like to call by names, numbers and dates. Formats without such a
    header (NIfTI, NRRD, MetaImage) keep the names that they were given.

    Returns:
        a name for files and folders; the same for the same path.
    """
    if scan.kind != "dicom":
        return scan.name
    header = pydicom.dcmread(scan.files[0], stop_before_pixels=True, specific_tags=list(IDENTITY))
    name = scan.name.lower()
    plain = re.sub(r"[^a-z0-9]", "", name)  # 2026-11-23 is 20261123
    for element in header:
        for part in re.split(r"[\s^=,;\\]+", str(element.value).lower()):
            part = re.sub(r"[^\w]", "", part) if element.VR != "UI" else part
            if len(part) >= SHORTEST and (part in name or part in plain):
                return "ct-" + hashlib.sha256(f"{scan.source.absolute()}/{scan.name}".encode()).hexdigest()[:10]
    return scan.name
