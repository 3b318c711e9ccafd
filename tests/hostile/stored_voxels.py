"""NRRD and MetaImage files with voxels that are stored in one of the formats' many ways, or damaged."""

import bz2
import gzip
import zlib
from pathlib import Path

from .case import Table, ct, write
from .nrrd import by_itk, edited

table = Table()
refused, read, doubted = table.refused, table.read, table.doubted
CASES = table.cases
VOXELS = ct().tobytes(order="F")


def nrrd(folder: Path, voxels: bytes, *changes: tuple[bytes, bytes]) -> Path:
    """A .nrrd with other bytes after its header, which is changed too."""
    path = by_itk(folder / "ct.nrrd")
    header, _ = path.read_bytes().split(b"\n\n", 1)
    return edited(write(path, header + b"\n\n" + voxels), *changes)


def metaimage(folder: Path, voxels: bytes, *changes: tuple[bytes, bytes]) -> Path:
    """A .mha with other bytes after its header, which is changed too."""
    path = by_itk(folder / "ct.mha")
    header, _ = path.read_bytes().split(b"LOCAL\n", 1)
    return edited(write(path, header + b"LOCAL\n" + voxels), *changes)


PACKED = (b"CompressedData = False", b"CompressedData = True")
GZIP, BZIP2 = (b"encoding: raw", b"encoding: gzip"), (b"encoding: raw", b"encoding: bzip2")

TEXT, ASCII = (b"encoding: raw", b"encoding: text"), (b"BinaryData = True", b"BinaryData = False")


def skip(count: int) -> tuple[bytes, bytes]:
    return b"encoding:", b"byte skip: %d\nencoding:" % count


LINES = (b"encoding:", b"line skip: 2\nencoding:")
BIG = ct().astype(">i2").tobytes(order="F")
SHORT = VOXELS[:-480]

for what, make in (
    ("big-endian", lambda f: nrrd(f, BIG, (b"endian: little", b"endian: big"))),
    ("compressed by bzip2", lambda f: nrrd(f, bz2.compress(VOXELS), BZIP2)),
    ("compressed in two parts", lambda f: nrrd(f, gzip.compress(VOXELS[:999]) + gzip.compress(VOXELS[999:]), GZIP)),
    ("with byte skip -1", lambda f: nrrd(f, b"#" * 33 + VOXELS, skip(-1))),
    ("with byte skip 7", lambda f: nrrd(f, b"#" * 7 + VOXELS, skip(7))),
    ("with byte skip 7, compressed", lambda f: nrrd(f, gzip.compress(b"#" * 7 + VOXELS), GZIP, skip(7))),
    ("with line skip 2", lambda f: nrrd(f, b"a\nb\n" + VOXELS, LINES)),
):
    read(f".nrrd {what}")(make)

for what, says, make in (
    ("with byte skip -5", "byte skip -5", lambda f: nrrd(f, VOXELS, skip(-5))),
    ("with byte skip -1, compressed", "byte skip -1", lambda f: nrrd(f, gzip.compress(VOXELS), GZIP, skip(-1))),
    ("with byte skip 10^12", "places the voxels", lambda f: nrrd(f, VOXELS, skip(10**12))),
    (
        "with voxels as text",
        "encoding text is not read",
        lambda f: nrrd(f, b"1 ", TEXT),
    ),
    ("with bytes after its voxels", "more voxels than its header claims", lambda f: nrrd(f, VOXELS + bytes(9))),
    ("with a stream that holds a slice less", "damaged or truncated", lambda f: nrrd(f, gzip.compress(SHORT), GZIP)),
    ("with a stream that holds more", "damaged", lambda f: nrrd(f, gzip.compress(VOXELS + bytes(9)), GZIP)),
    ("with a wrong checksum", "damaged", lambda f: nrrd(f, gzip.compress(VOXELS)[:-8] + bytes(8), GZIP)),
):
    refused(f".nrrd {what}", says)(make)

for what, make in (
    ("big-endian", lambda f: metaimage(f, BIG, (b"MSB = False", b"MSB = True"))),
    ("compressed, without CompressedDataSize", lambda f: metaimage(f, zlib.compress(VOXELS), PACKED)),
    ("compressed, with another CompressedDataSize",
     lambda f: metaimage(f, zlib.compress(VOXELS), (PACKED[0], PACKED[1] + b"\nCompressedDataSize = 99"))),
    ("compressed by gzip", lambda f: metaimage(f, gzip.compress(VOXELS), PACKED)),
):  # fmt: skip
    read(f".mha {what}")(make)

for what, says, make in (
    ("of random bytes that claims to be compressed", "damaged", lambda f: metaimage(f, VOXELS, PACKED)),
    ("with a stream that holds a slice less", "damaged", lambda f: metaimage(f, zlib.compress(SHORT), PACKED)),
    ("with a stream that holds more", "damaged", lambda f: metaimage(f, zlib.compress(VOXELS + bytes(9)), PACKED)),
    ("with a wrong checksum", "damaged", lambda f: metaimage(f, zlib.compress(VOXELS)[:-4] + bytes(4), PACKED)),
    ("with bytes after its voxels", "more voxels than its header", lambda f: metaimage(f, VOXELS + bytes(9))),
    ("with voxels as text", "written as text", lambda f: metaimage(f, VOXELS, ASCII)),
    ("with HeaderSize -5", "HeaderSize -5", lambda f: metaimage(f, VOXELS, (b"NDims", b"HeaderSize = -5\nNDims"))),
):  # fmt: skip
    refused(f".mha {what}", says)(make)


def mhd(folder: Path, voxels: bytes, header_size: int) -> Path:
    path = edited(by_itk(folder / "ct.mhd"), (b"ElementDataFile", b"HeaderSize = %d\nElementDataFile" % header_size))
    write(folder / "ct.raw", voxels)
    return path


read(".mhd with HeaderSize 33")(lambda f: mhd(f, b"#" * 33 + VOXELS, 33))
read(".mhd with HeaderSize -1")(lambda f: mhd(f, b"#" * 33 + VOXELS, -1))
refused(".mhd with voxels cut short", "truncated")(lambda f: mhd(f, SHORT, 0))


@refused(".mhd, compressed, with voxels cut short", "damaged or truncated")
def _(folder):
    path = by_itk(folder / "ct.mhd", True)
    write(folder / "ct.zraw", (folder / "ct.zraw").read_bytes()[:-100])
    return path


for name in ("SCAN.MHA", "SCAN.NRRD", "SCAN.MHD"):
    read(f"{name}, in upper case")(lambda f, name=name: by_itk(f / name.lower()).rename(f / name))

UNSTATED = "states no orientation"
for what, left_out in (("space", (b"space: ",)), ("space and directions", (b"space",))):

    @doubted(f".nrrd without {what}", UNSTATED)
    def _(folder, left_out=left_out):
        path = by_itk(folder / "ct.nrrd")
        header, voxels = path.read_bytes().split(b"\n\n", 1)
        lines = [line for line in header.split(b"\n") if not line.startswith(left_out)]
        if len(left_out[0]) < 6:
            lines.append(b"spacings: 9 9 12")
        else:
            lines.insert(5, b"space dimension: 3")
        return write(path, b"\n".join(lines) + b"\n\n" + voxels)


@doubted(".mha with spacing and no directions", UNSTATED)
def _(folder):
    path = by_itk(folder / "ct.mha")
    lines = path.read_bytes().split(b"\n", 20)
    return write(path, b"\n".join(line for line in lines if not line.startswith(b"TransformMatrix")))
