"""DICOM folders with more in them than the slices of one series."""

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import MediaStorageDirectoryStorage, SecondaryCaptureImageStorage, generate_uid
from series_files import rewrite, write_series

from .case import AFFINE, Table, ct
from .dicoms import TURNED, series, some

table = Table()
refused, read = table.refused, table.read
CASES = table.cases


def beside(folder, **tags):
    """A series with two more files in its folder that have these tags."""
    files = series(folder)
    more = write_series(ct()[:, :, :2], AFFINE, folder / "more", change=some(None, **tags))
    for number, file in enumerate(more):
        file.rename(files[0].parent / f"Z{number}")
    (folder / "more").rmdir()
    return files[0].parent


@refused("a DICOM localizer by its file", "localizer")
def _(folder):
    beside(folder, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    return next((folder / "dicom").glob("Z*"))


@refused("a DICOM file that is no scan, beside damaged ones", "Z0: no CT volume: modality SR")
def _(folder):
    place = beside(folder, Modality="SR")
    (place / "note.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    return place / "Z0"


@refused("a DICOM segmentation by its file", "Z0: no CT volume: modality SEG; a segmentation; give the CT")
def _(folder):
    return beside(folder, Modality="SEG") / "Z0"


@refused("a DICOMDIR by its file", "DICOMDIR: no CT volume: DICOMDIR; it lists files; give their folder")
def _(folder):
    return with_dicomdir(folder) / "DICOMDIR"


@read("a DICOM series by one of its files, beside damaged ones")
def _(folder):
    files = series(folder)
    (files[0].parent / "note.dcm").write_bytes(bytes(128) + b"DICM" + b"\xff" * 40)
    return files[2]


@refused("two CT series in one folder, each without a slice", "dicom, series 7: slices 12.00 to 24.00 mm")
def _(folder):
    for number in (2, 7):
        files = series(folder, some(None, SeriesNumber=number), name=f"{number}")
        files[5].unlink()
        for file in (folder / f"{number}").iterdir():
            (folder / "dicom").mkdir(exist_ok=True)
            file.rename(folder / "dicom" / f"{number}{file.name}")
        (folder / f"{number}").rmdir()
    return folder / "dicom"


for what, tags in (
    ("localizer", {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": TURNED}),
    ("secondary capture image storage", {"SOPClassUID": SecondaryCaptureImageStorage}),
    ("modality SR", {"Modality": "SR"}),
    ("modality PT", {"Modality": "PT"}),
):
    read(f"DICOM folder with two files beside it: {what}", f"2 DICOM files beside it set aside ({what})")(
        lambda folder, tags=tags: beside(folder, **tags)
    )


@read("DICOM series with a localizer under the same SeriesInstanceUID", "beside it set aside (localizer)")
def _(folder):
    place = beside(folder, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=TURNED)
    uid = pydicom.dcmread(place / "IM0000").SeriesInstanceUID
    for file in place.glob("Z*"):
        rewrite(file, SeriesInstanceUID=uid)
    return place


@read("DICOM folder with a DICOMDIR, text and a picture beside it", "beside it set aside (DICOMDIR)")
def with_dicomdir(folder):
    files = series(folder)
    ds = pydicom.dcmread(files[0], stop_before_pixels=True)
    listing = Dataset()
    listing.file_meta = ds.file_meta
    listing.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    listing.save_as(files[0].parent / "DICOMDIR", enforce_file_format=True)
    (files[0].parent / "readme.txt").write_text("x")
    (files[0].parent / "key.png").write_bytes(b"\x89PNG")
    return files[0].parent


@read("DICOM series with doubled slices, the same pixels", "2 doubled slices dropped")
def _(folder):
    files = series(folder)
    for file in files[3:5]:
        copy = files[0].parent / f"{file.name}_copy"
        copy.write_bytes(file.read_bytes())
        rewrite(copy, SOPInstanceUID=generate_uid())
    return files[0].parent


@refused("DICOM series with a doubled slice of other pixels", "missing, doubled")
def _(folder):
    files = series(folder)
    copy = files[0].parent / "copy"
    copy.write_bytes(files[3].read_bytes())
    rewrite(copy, PixelData=bytes(960))
    return files[0].parent


@read("two CT series in one folder", scans=2)
def _(folder):
    series(folder)
    for file in series(folder, some(None, SeriesNumber=7), name="more"):
        file.rename(folder / "dicom" / f"B{file.name}")
    (folder / "more").rmdir()
    return folder / "dicom"


@read("one CT series in two folders")
def _(folder):
    files = series(folder)
    (folder / "dicom" / "b").mkdir()
    for file in files[6:]:
        file.rename(folder / "dicom" / "b" / file.name)
    return folder / "dicom"


@read("a DICOM series by one of its files")
def _(folder):
    return series(folder)[4]
