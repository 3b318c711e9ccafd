"""Zips, folders, lists and paths."""

import os
import stat
import struct
import zipfile
from pathlib import Path

from dicom import write_series

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
    ("whose names lead out of it (../)", "../../IM{n}", ""),
    ("whose names are absolute", "{outside}/IM{n}", ""),
    ("whose names have drive letters and backslashes", "C:\\..\\IM{n}", ""),
    ("whose names are all the same", "IM", ""),
    ("whose names are 5000 characters long", "x" * 5000 + "{n}", ""),
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


@refused("zip bomb: 256 MB of DICOM in 0.3 MB", "no CT is as empty")
def _(folder):
    path = folder / "ct.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened, opened.open("IM0", "w") as entry:
        entry.write(bytes(128) + b"DICM")
        for _ in range(4):
            entry.write(bytes(2**26))
    return path


@refused("zip whose entry claims 4 GB", "the header claims 4 GB")
def _(folder):
    path = pack(folder / "ct.zip", [("IM0", slices(folder)[0])])
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFF0)
    path.write_bytes(content)
    return path


# folders, lists and paths


@refused("a path that is not there", "no such file or folder")
def _(folder):
    return folder / "ct.nii.gz"


@refused("a path with line ends and escape sequences that is not there", "no such file or folder")
def _(folder):
    return folder / "ct\n\x1b[2J.nii.gz"


@refused("a link that leads nowhere", "no such file or folder")
def _(folder):
    (folder / "ct.nii.gz").symlink_to(folder / "gone")
    return folder / "ct.nii.gz"


@refused("a link that leads to itself", "no such file or folder")
def _(folder):
    (folder / "ct.nii.gz").symlink_to(folder / "ct.nii.gz")
    return folder / "ct.nii.gz"


@refused("a pipe named .nii.gz", "neither a file nor a folder")
def _(folder):
    os.mkfifo(folder / "ct.nii.gz")
    return folder / "ct.nii.gz"


@refused("an empty folder", "no scan in this folder")
def _(folder):
    (folder / "ct").mkdir()
    return folder / "ct"


@refused("an empty folder named .nii.gz", "no scan in this folder")
def _(folder):
    (folder / "ct.nii.gz").mkdir()
    return folder / "ct.nii.gz"


@refused("a folder of text and pictures", "no scan in this folder")
def _(folder):
    (folder / "ct").mkdir()
    (folder / "ct" / "a.png").write_bytes(b"\x89PNG")
    (folder / "ct" / "a.csv").write_text("x")
    return folder / "ct"


@refused("a file of an unknown kind", "no scan in this file")
def _(folder):
    (folder / "ct.jpg").write_bytes(b"\xff\xd8\xff")
    return folder / "ct.jpg"


@refused("an empty list", "an empty list")
def _(folder):
    (folder / "list.txt").write_text("# nothing\n\n")
    return folder / "list.txt"


@refused("a list of bytes that are no text", "not a text list")
def _(folder):
    (folder / "list.txt").write_bytes(b"\xff\xfe\x00\x01" * 50)
    return folder / "list.txt"


@refused("a list of more than 16 MB", "split it")
def _(folder):
    save(folder / "ct.nii.gz")
    (folder / "list.txt").write_bytes(b"ct.nii.gz\n" + b"#" * 2**24)
    return folder / "list.txt"


@refused("a list that names a missing file", "no such file or folder")
def _(folder):
    (folder / "list.txt").write_text("gone.nii.gz\n")
    return folder / "list.txt"


@refused("a list that names itself", "no scan in this file")
def _(folder):
    (folder / "list.txt").write_text("list.txt\n")
    return folder / "list.txt"


@refused("a list with a null byte in a path", "no such file or folder")
def _(folder):
    (folder / "list.txt").write_bytes(b"a\0b.nii.gz\n")
    return folder / "list.txt"


@read("a list of one file, relative to it")
def _(folder):
    save(folder / "ct.nii.gz")
    (folder / "list.txt").write_text("# scans\n\nct.nii.gz\n")
    return folder / "list.txt"


@read("a list of one file that begins with a byte order mark")
def _(folder):
    save(folder / "ct.nii.gz")
    (folder / "list.txt").write_text("ct.nii.gz\n", "utf-8-sig")
    return folder / "list.txt"


@read("a folder that links to itself")
def _(folder):
    (folder / "ct").mkdir()
    save(folder / "ct" / "ct.nii.gz")
    (folder / "ct" / "again").symlink_to(folder / "ct")
    return folder / "ct"


@read("a folder with macOS's ._ files and a pipe beside a NIfTI")
def _(folder):
    (folder / "ct").mkdir()
    save(folder / "ct" / "ct.nii.gz")
    (folder / "ct" / "._ct.nii.gz").write_bytes(b"\0\5\x16\7")
    os.mkfifo(folder / "ct" / "pipe.nii.gz")
    return folder / "ct"


@read("a file name of line ends, quotes and other scripts")
def _(folder):
    return save(folder / "肝 'ct'\n; rm -rf $HOME.nii.gz")
