"""NRRD and MetaImage files."""

import gzip
import zlib
from pathlib import Path

import itk
import numpy as np

from .case import Table, save, write

table = Table()
refused, read, doubted = table.refused, table.read, table.doubted
CASES = table.cases


def by_itk(path: Path, packed: bool = False) -> Path:
    nifti = save(path.parent / "a.nii")
    itk.imwrite(itk.imread(str(nifti)), str(path), compression=packed)
    nifti.unlink()
    return path


def edited(path: Path, *changes: tuple[bytes, bytes]) -> Path:
    """A file with bytes of it exchanged, each once."""
    content = path.read_bytes()
    for old, new in changes:
        assert old in content, old
        content = content.replace(old, new, 1)
    return write(path, content)


for suffix in ("nrrd", "mha", "mhd"):
    for packed in (False, True):
        read(f".{suffix}{', compressed' if packed else ''}")(
            lambda folder, suffix=suffix, packed=packed: by_itk(folder / f"ct.{suffix}", packed)
        )
    refused(f"random bytes named .{suffix}", "cannot be read" if suffix == "nrrd" else "not in one file")(
        lambda folder, suffix=suffix: write(folder / f"ct.{suffix}", np.random.default_rng(0).bytes(5000))
    )

for suffix in ("nrrd", "mha"):
    for packed in (False, True):
        refused(f".{suffix}{', compressed,' if packed else ''} cut short", "cannot be read" if packed else "truncated")(
            lambda folder, suffix=suffix, packed=packed: write(
                folder / f"ct.{suffix}", by_itk(folder / f"ct.{suffix}", packed).read_bytes()[:4000]
            )
        )


@refused("1 KB .nrrd with a header that claims 10^9 voxels", "the header claims")
def _(folder):
    return edited(by_itk(folder / "ct.nrrd"), (b"sizes: 24 20 12", b"sizes: 1000 1000 1000"))


@refused("1 KB .mha with a header that claims 10^9 voxels", "the header claims")
def _(folder):
    return edited(by_itk(folder / "ct.mha"), (b"DimSize = 24 20 12", b"DimSize = 1000 1000 1000"))


@refused("bomb: a .nrrd of 256 MB of zeros in 0.3 MB", "no CT compresses that much")
def _(folder):
    head, _ = by_itk(folder / "ct.nrrd", True).read_bytes().split(b"\n\n", 1)
    zeros = gzip.compress(bytes(2**26)) * 4
    return write(folder / "ct.nrrd", head.replace(b"24 20 12", b"1024 1024 128") + b"\n\n" + zeros)


@refused("bomb: a .mha of 256 MB of zeros in 0.3 MB", "no CT compresses that much")
def _(folder):
    head, _ = by_itk(folder / "ct.mha", True).read_bytes().split(b"LOCAL\n", 1)
    head = b"\n".join(line for line in head.split(b"\n") if not line.startswith(b"CompressedDataSize"))
    packer = zlib.compressobj()
    zeros = b"".join(packer.compress(bytes(2**26)) for _ in range(4)) + packer.flush()
    return write(folder / "ct.mha", head.replace(b"24 20 12", b"1024 1024 128") + b"LOCAL\n" + zeros)


@doubted(".mha without spacing, direction and origin", "affine is an identity")
def _(folder):
    path = by_itk(folder / "ct.mha")
    kept = (line for line in path.read_bytes().split(b"\n", 20))
    stated = (b"ElementSpacing", b"TransformMatrix", b"Offset")
    return write(path, b"\n".join(line for line in kept if not line.startswith(stated)))


@refused(".nrrd with its voxels in another file", "in another file")
def _(folder):
    return edited(by_itk(folder / "ct.nrrd"), (b"encoding: raw", b"encoding: raw\ndata file: ../secret.raw"))


@refused(".nrrd of three values a voxel", "3 values a voxel")
def _(folder):
    vector = itk.image_from_array(np.zeros((8, 8, 8, 3), np.uint8), is_vector=True)
    itk.imwrite(vector, str(folder / "ct.nrrd"))
    return folder / "ct.nrrd"


@refused(".mha with a singular direction", "singular")
def _(folder):
    return edited(by_itk(folder / "ct.mha"), (b"TransformMatrix = 1 0 0 0 1 0", b"TransformMatrix = 1 0 0 1 0 0"))


@refused(".mha with a spacing of zero", "singular")
def _(folder):
    return edited(by_itk(folder / "ct.mha"), (b"ElementSpacing = 9 9 12", b"ElementSpacing = 0 9 12"))


@refused(".mhd without its voxels", "is missing")
def _(folder):
    path = by_itk(folder / "ct.mhd")
    (folder / "ct.raw").unlink()
    return path


for place in ("../ct.raw", "/etc/passwd", "LIST", "ct%03d.raw 1 12 1"):
    refused(f".mhd that names `{place}` as its voxels", "not in one file beside it")(
        lambda folder, place=place: edited(by_itk(folder / "ct.mhd"), (b"= ct.raw", b"= " + place.encode()))
    )
