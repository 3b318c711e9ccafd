"""Names of results that say nothing of the patient."""

from __future__ import annotations

import hashlib
import re

import pydicom

from .reading.scan import LONGEST, Scan

IDENTITY = ("PatientName", "PatientID", "OtherPatientIDs", "PatientBirthDate", "AccessionNumber", "StudyID")
IDENTITY += ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate", "StudyInstanceUID", "SeriesInstanceUID")
IDENTITY += ("SOPInstanceUID", "InstitutionName", "ReferringPhysicianName")
SHORTEST = 3  # characters; shorter parts of a name are found in any word


def public_name(scan: Scan) -> str:
    """The scan's name, or a hash in its place where it repeats what the DICOM header says of the patient, or may.

    Names come from files and folders, which hospitals like to call by names, numbers and dates. One of `LONGEST`
    characters may be cut, so that what it repeats is not found in it: it is a hash too. Formats without such a
    header (NIfTI, NRRD, MetaImage) keep the names that they were given.

    Returns:
        a name for files and folders; the same for the same path.
    """
    if scan.kind != "dicom" or not (len(scan.name) >= LONGEST or _tells(scan)):
        return scan.name
    return "ct-" + hashlib.sha256(f"{scan.source.absolute()}/{scan.name}".encode()).hexdigest()[:10]


def _tells(scan: Scan) -> bool:
    """Whether the name repeats an element of the header; one that cannot be decoded might be repeated."""
    name = scan.name.lower()
    plain = re.sub(r"[^a-z0-9]", "", name)  # 2026-11-23 is 20261123
    options = {"stop_before_pixels": True, "force": True, "specific_tags": list(IDENTITY)}
    try:
        for element in pydicom.dcmread(scan.files[0].open("rb"), **options):
            for part in re.split(r"[\s^=,;\\]+", str(element.value).lower()):
                part = re.sub(r"[^\w]", "", part) if element.VR != "UI" else part
                if len(part) >= SHORTEST and (part in name or part in plain):
                    return True
    except OSError:  # the file is gone, or cannot be read
        raise
    except Exception:  # pydicom raises anything on a malformed element
        return True
    return False
