"""DICOM with compressed or damaged pixels."""

import struct
import zlib

import pydicom
from pydicom.uid import UID, HTJ2KLossless
from series_files import compress

from .case import Table
from .dicoms import series, some

table = Table()
refused, read = table.refused, table.read
CASES = table.cases


for name, syntax in (
    ("JPEG Lossless", "JPEGLosslessProcess14_1"),
    ("JPEG 2000", "JPEG2000Lossless"),
    ("RLE", "RLELossless"),
):

    @read(f"DICOM folder compressed by {name}")
    def _(folder, syntax=syntax):
        files = series(folder)
        for file in files:
            compress(file, syntax)
        return files[0].parent


for name, syntax in (("not", ""), ("by JPEG Lossless", "JPEGLosslessProcess14_1"), ("by RLE", "RLELossless")):

    @read(f"DICOM folder of MONOCHROME1, compressed {name}" if syntax else "DICOM folder of MONOCHROME1")
    def _(folder, syntax=syntax):
        files = series(folder, some(None, PhotometricInterpretation="MONOCHROME1"))
        for file in files if syntax else ():
            compress(file, syntax)
            assert pydicom.dcmread(file).PhotometricInterpretation == "MONOCHROME1"
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


@refused("DICOM slice that claims to be JPEG and is not", "damaged or truncated pixels")
def _(folder):
    files = series(folder)
    compress(files[5], "JPEGLosslessProcess14_1")
    content = files[5].read_bytes()
    at = content.index(b"\xff\xd8\xff")
    files[5].write_bytes(content[:at] + bytes(len(content) - at))
    return files[0].parent


@refused("DICOM slice with JPEG 2000 that claims 30000 x 30000 pixels", "damaged or truncated pixels")
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
