"""Folders, links, lists and paths."""

import os

from series_files import write_series

from .case import AFFINE, Table, ct, save

table = Table()
refused, read = table.refused, table.read
CASES = table.cases


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


@refused("a pipe named .nii.gz", "not a file or a folder")
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


@read("a folder of links to a folder of a CT, to the one above and to itself")
def _(folder):
    (folder / "ct").mkdir()
    (folder / "data" / "s0001").mkdir(parents=True)
    save(folder / "data" / "s0001" / "ct.nii.gz")
    (folder / "ct" / "s0001").symlink_to(folder / "data" / "s0001")
    (folder / "ct" / "twice").symlink_to(folder / "data" / "s0001")
    (folder / "data" / "s0001" / "loop").symlink_to(folder / "data")
    (folder / "ct" / "above").symlink_to(folder)
    return folder / "ct"


@read("a folder that links to a folder of DICOM")
def _(folder):
    (folder / "ct").mkdir()
    write_series(ct(), AFFINE, folder / "data")
    (folder / "ct" / "case").symlink_to(folder / "data")
    return folder / "ct"


@refused("a folder with a link named .nii.gz that leads nowhere", "a link that leads nowhere")
def _(folder):
    (folder / "ct").mkdir()
    (folder / "ct" / "ct.nii.gz").symlink_to(folder / "gone")
    return folder / "ct"


for name in ("ct.dcm", "ct.hdr", "ct.nhdr", "ct.tar"):
    refused(f"a folder of a {name} that is not read", f"{name[2:]}: not read")(
        lambda folder, name=name: ((folder / name).write_bytes(bytes(5000)), folder)[1]
    )


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
