"""DICOM with UIDs or numbers that say little about which slices belong together."""

import numpy as np
import pydicom
from pydicom.uid import generate_uid

from .case import Table
from .dicoms import series, some

table = Table()
refused, read = table.refused, table.read
CASES = table.cases

EMPTY = dict.fromkeys(("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"), "")

for what, change in (
    ("UIDs emptied by an anonymiser", some(None, **EMPTY, SeriesNumber=None)),
    ("UIDs removed by an anonymiser", some(None, **dict.fromkeys(EMPTY))),
    ("series and acquisition numbers that are no numbers", some(None, SeriesNumber="", AcquisitionNumber="")),
):
    read(f"DICOM folder with {what}")(lambda folder, change=change: series(folder, change)[0].parent)

ONE_BY_ONE = "taken as one series"
for what, change in (
    ("a SeriesInstanceUID for each slice", lambda z, ds: setattr(ds, "SeriesInstanceUID", generate_uid())),
    ("a StudyInstanceUID for each slice", lambda z, ds: setattr(ds, "StudyInstanceUID", generate_uid())),
    ("a SeriesInstanceUID for every second slice", lambda z, ds: setattr(ds, "SeriesInstanceUID", f"1.2.{z % 2}")),
    ("a SeriesInstanceUID that half of the slices lack", lambda z, ds: z < 6 and delattr(ds, "SeriesInstanceUID")),
    ("a StudyInstanceUID that every third slice lacks", lambda z, ds: z % 3 or delattr(ds, "StudyInstanceUID")),
):
    read(f"DICOM folder with {what}", ONE_BY_ONE)(lambda folder, change=change: series(folder, change)[0].parent)


@refused("DICOM folder with a SeriesInstanceUID for every second slice, and one missing", "a gap between -252.0 and")
def _(folder):
    files = series(folder, lambda z, ds: setattr(ds, "SeriesInstanceUID", f"1.2.{z % 2}"))
    files[5].unlink()
    return files[0].parent


def phases(folder, number):
    """Two acquisitions of all slices, with other pixels, under one series."""
    files = series(folder, lambda z, ds: setattr(ds, "AcquisitionNumber", number(z, 1)))
    for z, file in enumerate(files):
        ds = pydicom.dcmread(file)
        pixels = np.frombuffer(ds.PixelData, np.uint16)
        ds.PixelData, ds.SOPInstanceUID = (pixels + (pixels > 900)).tobytes(), generate_uid()
        ds.AcquisitionNumber = number(z, 2)
        ds.save_as(file.with_name(f"Z{file.name}"))
    return files[0].parent


read("DICOM series of two acquisitions at the same places", scans=2)(lambda f: phases(f, lambda z, part: part))
refused("DICOM series of two phases that no number tells apart", "12 of them doubled, at -300.0, -288.0, -276.0, ...")(
    lambda folder: phases(folder, lambda z, part: 1)
)
refused("DICOM series of two phases with odd acquisition numbers", "of the acquisitions 1, 2, 3")(
    lambda folder: phases(folder, lambda z, part: part + (z == 5))
)
