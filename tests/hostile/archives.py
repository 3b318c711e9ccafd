"""Zips."""

import os
import shutil
import stat
import struct
import zipfile
from pathlib import Path

from series_files import compress, write_series

from .case import AFFINE, Table, ct, save

table = Table()
refused, read = table.refused, table.read
CASES = table.cases


def slices(folder: Path) -> list[bytes]:
    files = write_series(ct(), AFFINE, folder / "dicom")
    contents = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    (folder / "dicom").rmdir()
    return contents


def pack(path: Path, entries) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in entries:
            opened.writestr(name, content)
    return path


for what, name, note in (
    ("of DICOM", "study/IM{n}", ""),
    ("with names that lead out of it (../)", "../../IM{n}", ""),
    ("with absolute names", "{outside}/IM{n}", ""),
    ("with drive letters and backslashes in the names", "C:\\..\\IM{n}", ""),
    ("with the same name for all files", "IM", ""),
    ("with names of 5000 characters", "x" * 5000 + "{n}", ""),
):
    read(f"zip {what}", note)(
        lambda folder, name=name: pack(
            folder / "ct.zip",
            # what escapes to `outside`, the folder around, is found there by the test
            [(name.format(n=n, outside=folder.parent), content) for n, content in enumerate(slices(folder))],
        )
    )


@read("zip with text, a picture and a zip beside the DICOM files")
def _(folder):
    inner = pack(folder / "a.zip", [("x", b"x")]).read_bytes()
    (folder / "a.zip").unlink()
    entries = [(f"IM{n}", content) for n, content in enumerate(slices(folder))]
    return pack(folder / "ct.zip", [*entries, ("readme.txt", b"x"), ("a.png", b"\x89PNG"), ("b.zip", inner)])


@read("zip of DICOM slices without preamble")
def _(folder):
    return pack(folder / "ct.zip", [(f"IM{n}", content[132:]) for n, content in enumerate(slices(folder))])


@read("zip of DICOM compressed by JPEG-LS")
def _(folder):
    files = write_series(ct(), AFFINE, folder / "dicom")
    for file in files:
        compress(file, "JPEGLSLossless")
    path = pack(folder / "ct.zip", [(file.name, file.read_bytes()) for file in files])
    shutil.rmtree(folder / "dicom")
    return path


@refused("zip of a slice that is damaged, by its name in the zip", "ct.zip: study/IM5: ")
def _(folder):
    contents = slices(folder)
    contents[5] = contents[5][:200]
    return pack(folder / "ct.zip", [(f"study/IM{n}", content) for n, content in enumerate(contents)])


@refused("zip of 300 damaged DICOM files", "ct.zip: 297 more files in it cannot be read either.")
def _(folder):
    return pack(folder / "ct.zip", [(f"IM{n}", bytes(128) + b"DICM" + b"\xff" * 40) for n in range(300)])


@refused("zip of a NIfTI", "images in a zip are not read: unpack it")
def _(folder):
    content = save(folder / "ct.nii.gz").read_bytes()
    (folder / "ct.nii.gz").unlink()
    return pack(folder / "ct.zip", [("ct.nii.gz", content)])


@refused("zip of a link to /etc/passwd", "no scan in this file")
def _(folder):
    link = zipfile.ZipInfo("IM0")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return pack(folder / "ct.zip", [(link, b"/etc/passwd")])


@refused("zip of text", "no scan in this file")
def _(folder):
    return pack(folder / "ct.zip", [("readme.txt", b"x")])


@refused("empty zip", "no scan in this file")
def _(folder):
    return pack(folder / "ct.zip", [])


@refused("random bytes named .zip", "damaged zip")
def _(folder):
    (folder / "ct.zip").write_bytes(os.urandom(3000))
    return folder / "ct.zip"


@refused("zip cut short", "damaged zip")
def _(folder):
    path = pack(folder / "ct.zip", [(f"IM{n}", content) for n, content in enumerate(slices(folder))])
    path.write_bytes(path.read_bytes()[:-2000])
    return path


@refused("zip with a damaged entry", "damaged zip")
def _(folder):
    path = pack(folder / "ct.zip", [(f"IM{n}", content) for n, content in enumerate(slices(folder))])
    content = bytearray(path.read_bytes())
    content[1500:1520] = bytes(20)
    path.write_bytes(content)
    return path


@refused("encrypted zip", "encrypted")
def _(folder):
    path = pack(folder / "ct.zip", [(f"IM{n}", content) for n, content in enumerate(slices(folder))])
    content = bytearray(path.read_bytes())
    at = -1
    while (at := content.find(b"PK\x01\x02", at + 1)) >= 0:
        content[at + 8] |= 1
    path.write_bytes(content)
    return path


@refused("zip bomb: 256 MB of DICOM in 0.3 MB", "no CT compresses that much")
def _(folder):
    path = folder / "ct.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened, opened.open("IM0", "w") as entry:
        entry.write(bytes(128) + b"DICM")
        for _ in range(4):
            entry.write(bytes(2**26))
    return path


@refused("zip with an entry that claims 4 GB", "the header claims 4 GB")
def _(folder):
    path = pack(folder / "ct.zip", [("IM0", slices(folder)[0])])
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(content)
    return path
