"""DICOM folders and files."""

import struct
import zlib

import numpy as np
import pydicom
from dicom import compress, write_series
from pydicom.uid import (
    UID,
    EnhancedCTImageStorage,
    HTJ2KLossless,
)

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
    ("numbers against the slices' order", "", lambda z, ds: None, False),
    ("slices 0.03 mm out of place", "", positions(lambda z: (0, 0, 0.03 * (z % 2))), False),
    ("a tilt of 0.3 degrees", "straightened by 0.3 degrees", tilted(0.3), True),
    ("another rescale slope in one slice", "", lambda z, ds: halved(ds) if z == 5 else None, True),
    ("PixelPaddingValue", "20 voxels of padding", lambda z, ds: padded(ds) if z == 5 else None, True),
    ("numbers that no slice lacks but one", "", some(5, InstanceNumber=None), False),
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


for name, syntax in (
    ("JPEG Lossless", "JPEGLosslessProcess14_1"),
    ("JPEG-LS", "JPEGLSLossless"),
    ("JPEG 2000", "JPEG2000Lossless"),
    ("RLE", "RLELossless"),
):

    @read(f"DICOM folder compressed by {name}")
    def _(folder, syntax=syntax):
        files = series(folder)
        for file in files:
            compress(file, syntax)
        return files[0].parent


@refused("DICOM folder compressed by High-Throughput JPEG 2000", "is not read")
def _(folder):
    files = series(folder)
    for file in files:
        compress(file, "JPEG2000Lossless")
        ds = pydicom.dcmread(file)
        ds.file_meta.TransferSyntaxUID = HTJ2KLossless
        ds.save_as(file)
    return files[0].parent


@refused("DICOM slice with a JPEG cut short", "damaged or truncated pixels")
def _(folder):
    files = series(folder)
    compress(files[5], "JPEGLosslessProcess14_1")
    files[5].write_bytes(files[5].read_bytes()[:-300])
    return files[0].parent


@refused("DICOM slice that calls itself a JPEG and is none", "damaged or truncated pixels")
def _(folder):
    files = series(folder)
    compress(files[5], "JPEGLosslessProcess14_1")
    content = files[5].read_bytes()
    at = content.index(b"\xff\xd8\xff")
    files[5].write_bytes(content[:at] + bytes(len(content) - at))
    return files[0].parent


@refused("DICOM slice whose JPEG 2000 claims 30000 x 30000 pixels", "damaged or truncated pixels")
def _(folder):
    files = series(folder)
    for file in files:
        compress(file, "JPEG2000Lossless")
    content = bytearray(files[5].read_bytes())
    size = content.index(b"\xff\x51") + 6  # of the image and of its tiles
    for at in (size, size + 4, size + 16, size + 20):
        content[at : at + 4] = struct.pack(">I", 30000)
    files[5].write_bytes(content)
    return files[0].parent


@refused("DICOM of an unknown transfer syntax", "is not read")
def _(folder):
    files = series(folder)
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"))
    return files[0].parent


@refused("bomb: deflated DICOM, 256 MB in 0.3 MB", "deflated DICOM is not read")
def _(folder):
    files = series(folder)
    packer = zlib.compressobj(wbits=-15)
    zeros = b"".join(packer.compress(bytes(2**26)) for _ in range(4)) + packer.flush()
    ds = pydicom.dcmread(files[0], stop_before_pixels=True)
    for file in files[1:]:
        file.unlink()
    ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    ds.save_as(files[0])
    files[0].write_bytes(files[0].read_bytes() + zeros)
    return files[0].parent


@refused("DICOM folder with a missing slice", "missing, doubled")
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


@refused("DICOM without its preamble", "no scan in this folder")
def _(folder):
    files = series(folder)
    for file in files:
        file.write_bytes(file.read_bytes()[132:])
    return files[0].parent


@refused("enhanced multiframe DICOM", "enhanced multiframe")
def _(folder):
    pixels = (ct().transpose(2, 1, 0).astype(int) + 1024).astype(np.uint16).tobytes()
    frames = {"NumberOfFrames": 12, "SOPClassUID": EnhancedCTImageStorage, "PixelData": pixels}
    files = series(folder, some(None, **frames, ImagePositionPatient=None, ImageOrientationPatient=None))
    for file in files[1:]:
        file.unlink()
    return files[0].parent
