"""DICOM folders and files."""

import struct

import numpy as np
import pydicom
from pydicom.uid import EnhancedCTImageStorage
from series_files import write_series

from .case import AFFINE, Table, ct

table = Table()
refused, read = table.refused, table.read
CASES = table.cases


def series(folder, change=None, affine=AFFINE, image=None, name="dicom"):
    return write_series(ct() if image is None else image, affine, folder / name, change=change)


def positions(shift):
    """A change that moves slice z by `shift(z)`, in mm (x, y, z)."""

    def change(z, ds):
        ds.ImagePositionPatient = [float(p) + d for p, d in zip(ds.ImagePositionPatient, shift(z))]

    return change


def some(index, **tags):
    """A change of one slice's tags, or of all where `index` is None; a tag of None is taken out."""

    def change(z, ds):
        if index in (None, z):
            for name, value in tags.items():
                if value is None:
                    delattr(ds, name)
                else:
                    setattr(ds, name, value)

    return change


def tilted(degrees):
    return positions(lambda z: (0, z * 12 * np.tan(np.radians(degrees)), 0))


LONG = ["2", "0", "0", "0", "2", "0"]
TURNED = ["1", "0", "0", "0", "0", "-1"]

for what, says, change in (
    ("a slice 3 mm out of place", "unevenly spaced", positions(lambda z: (0, 0, 3 * (z == 5)))),
    ("slices further apart above than below", "unevenly spaced", positions(lambda z: (0, 0, max(0, z - 6) * 2))),
    ("gantry tilt of 15 degrees", "15.0 degrees off a right angle", tilted(15)),
    ("a slice shifted sideways", "off one line", positions(lambda z: (5 * (z == 5), 0, 0))),
    ("a slice of another orientation", "more than one orientation", some(5, ImageOrientationPatient=TURNED)),
    ("a slice of another pixel spacing", "more than one pixel spacing", some(5, PixelSpacing=["8", "8"])),
    ("a slice of another matrix", "more than one matrix", some(5, Rows=10, PixelData=bytes(480))),
    ("a slice without ImagePositionPatient", "cannot be placed", some(5, ImagePositionPatient=None)),
    ("slices without ImageOrientationPatient", "cannot be placed", some(None, ImageOrientationPatient=None)),
    ("slices without PixelSpacing", "without PixelSpacing", some(None, PixelSpacing=None)),
    ("an ImagePositionPatient of two numbers", "cannot be placed", some(5, ImagePositionPatient=["1", "2"])),
    ("a position of nan", "cannot be placed", some(5, ImagePositionPatient=["nan", "0", "0"])),
    ("direction cosines of zero", "not two directions", some(None, ImageOrientationPatient=["0"] * 6)),
    ("direction cosines of length 2", "not two directions", some(None, ImageOrientationPatient=LONG)),
    ("pixels 0.001 mm apart", "spacing 0.001 x 0.001 x 12 mm", some(None, PixelSpacing=["0.001", "0.001"])),
    ("a negative PixelSpacing", "negative", some(None, PixelSpacing=["-9", "9"])),
    ("MR as its modality", "modality MR", some(None, Modality="MR")),
    ("no modality", "no modality", some(None, Modality=None)),
    ("a modality of control characters", "no modality", some(None, Modality="\x1b[2J\n")),
    ("localizers only", "localizer", some(None, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])),
    ("a projection (MIP)", "mip", some(None, ImageType=["DERIVED", "SECONDARY", "MIP"])),
    ("colour images", "colour image", some(None, SamplesPerPixel=3, PixelData=bytes(1440))),
    ("every image at one place (contrast monitoring)", "single position", positions(lambda z: (0, 0, -12 * z))),
    ("two images at each place (two phases)", "missing, doubled", positions(lambda z: (0, 0, -12 * (z % 2)))),
    ("RescaleType of a computed map", "RescaleType is not HU", some(None, RescaleType="Z_EFF")),
    ("RescaleSlope 0", "values", some(None, RescaleSlope="0")),
    ("no rescale", "not HU", some(None, RescaleSlope=None, RescaleIntercept=None)),
    ("no pixels", "truncated", some(5, PixelData=None)),
    ("Rows and Columns of 0", "not a volume", some(None, Rows=0, Columns=0)),
    ("Rows and Columns of 65535", "the header claims", some(None, Rows=65535, Columns=65535)),
    ("one slice of 8-bit pixels", "more than one pixel size", some(5, BitsAllocated=8)),
    ("more pixels than announced", "damaged or truncated pixels", some(5, PixelData=bytes(1920))),
):  # fmt: skip
    refused(f"DICOM folder with {what}", says)(lambda folder, change=change: series(folder, change)[0].parent)

for what, note, change, changed in (
    ("instance numbers against the slices' order", "", lambda z, ds: None, False),
    ("slices 0.03 mm out of place", "", positions(lambda z: (0, 0, 0.03 * (z % 2))), False),
    ("a tilt of 0.3 degrees", "straightened by 0.3 degrees", tilted(0.3), True),
    ("another rescale slope in one slice", "", lambda z, ds: halved(ds) if z == 5 else None, True),
    ("PixelPaddingValue", "20 voxels of padding", lambda z, ds: padded(ds) if z == 5 else None, True),
    ("one slice without InstanceNumber", "", some(5, InstanceNumber=None), False),
    ("a patient's name of control characters", "", some(None, PatientName="\x1b[2J\nx^y"), False),
    ("images marked as compressed with loss", "compressed with loss", some(None, LossyImageCompression="01"), False),
):  # fmt: skip
    read(f"DICOM folder with {what}", note, changed)(lambda folder, change=change: series(folder, change)[0].parent)


def halved(ds):
    ds.RescaleSlope = "2"
    ds.PixelData = (np.frombuffer(ds.PixelData, np.uint16) // 2).tobytes()


def padded(ds):
    pixels = np.frombuffer(ds.PixelData, np.uint16).reshape(20, 24).copy()
    pixels[:, 0] = 3
    ds.PixelData, ds.PixelPaddingValue = pixels.tobytes(), 3


@refused("DICOM folder with a missing slice", "a gap between -252.0 and -228.0 mm")
def _(folder):
    files = series(folder)
    files[5].unlink()
    return files[0].parent


@refused("DICOM folder with a truncated slice", "truncated")
def _(folder):
    files = series(folder)
    files[5].write_bytes(files[5].read_bytes()[:-400])
    return files[0].parent


@refused("DICOM slice of random bytes after its preamble", "damaged")
def _(folder):
    (folder / "dicom").mkdir()
    (folder / "dicom" / "IM1").write_bytes(bytes(128) + b"DICM" + np.random.default_rng(0).bytes(3000))
    return folder / "dicom"


@refused("DICOM slice that ends in its header", "damaged")
def _(folder):
    files = series(folder)
    for file in files:
        file.write_bytes(file.read_bytes()[:200])
    return files[0].parent


@refused("DICOM position that is no number", "damaged DICOM header")
def _(folder):
    files = series(folder)
    content = files[5].read_bytes()
    files[5].write_bytes(content.replace(b"-300.000000", b"-3OO.OOOOOO").replace(b"-240.000000", b"-24O.OOOOOO"))
    return files[0].parent


@refused("DICOM element that claims 4 GB", "damaged or truncated pixels")
def _(folder):
    files = series(folder)
    content = files[5].read_bytes()
    at = content.index(b"\xe0\x7f\x10\x00OW")
    files[5].write_bytes(content[:at] + b"\x09\x00\x10\x00OB\0\0\xfe\xff\xff\xff" + content[at:])
    return files[0].parent


@refused("DICOM sequences nested 5000 deep", "damaged")
def _(folder):
    files = series(folder)
    for file in files[1:]:
        file.unlink()
    content = files[0].read_bytes()
    nested = b"".join(
        b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) for _ in range(5000)
    )
    at = content.index(b"\x10\x00\x10\x00PN")
    files[0].write_bytes(content[:at] + nested + content[at:])
    return files[0].parent


@refused("a single DICOM slice", "single position")
def _(folder):
    files = series(folder)
    for file in files[1:]:
        file.unlink()
    return files[0]


@read("DICOM without its preamble")
def _(folder):
    files = series(folder)
    for file in files:
        file.write_bytes(file.read_bytes()[132:])
    return files[0].parent


def bare(file, implicit=True):
    """Takes preamble and file meta away, as before 1993."""
    ds = pydicom.dcmread(file)
    del ds.file_meta
    ds.preamble = None
    ds.save_as(file, implicit_vr=implicit, little_endian=True, enforce_file_format=False)


for implicit in (True, False):

    @read(f"DICOM slices without preamble ({'im' if implicit else 'ex'}plicit types) among slices with it")
    def _(folder, implicit=implicit):
        files = series(folder)
        for file in files[::2]:
            bare(file, implicit)
        return files[0].parent


@read("a DICOM series by one of its files, without preamble")
def _(folder):
    files = series(folder)
    for file in files:
        bare(file)
    return files[3]


@refused("enhanced multiframe DICOM", "enhanced multiframe")
def _(folder):
    pixels = (ct().transpose(2, 1, 0).astype(int) + 1024).astype(np.uint16).tobytes()
    frames = {"NumberOfFrames": 12, "SOPClassUID": EnhancedCTImageStorage, "PixelData": pixels}
    files = series(folder, some(None, **frames, ImagePositionPatient=None, ImageOrientationPatient=None))
    for file in files[1:]:
        file.unlink()
    return files[0].parent
