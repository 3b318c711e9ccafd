"""Damaged voxels: the right ones come out, or a refusal; never what memory held before."""

import bz2
import gzip
import shutil
import zlib

import numpy as np
import pytest
from hostile.case import ct, save, write
from hostile.nrrd import by_itk
from hostile.stored_voxels import BZIP2, PACKED, VOXELS, metaimage, nrrd

from scripts.reading import CTError, load, stream

FLIPS = 150
MARKER = 177  # in no CT here


def outcome(path):
    try:
        return np.asarray(load(path))
    except CTError as error:
        assert "\n" not in str(error)
        return None


PACKINGS = {
    ".mha": lambda folder: [by_itk(folder / "ct.mha", True)] * 2,
    ".mhd": lambda folder: [by_itk(folder / "ct.mhd", True), folder / "ct.zraw"],
    ".nrrd": lambda folder: [by_itk(folder / "ct.nrrd", True)] * 2,
    ".nrrd by bzip2": lambda folder: [nrrd(folder, bz2.compress(VOXELS), BZIP2)] * 2,
    ".nii.gz": lambda folder: [save(folder / "ct.nii.gz")] * 2,
}


@pytest.mark.parametrize("packing", [*PACKINGS, ".nii.gz by Python's zlib"])
def test_a_flipped_bit_gives_the_right_voxels_or_a_refusal(packing, tmp_path, capfd, monkeypatch):
    if packing not in PACKINGS:  # where isal is not installed
        packing = packing.split()[0]
        monkeypatch.setattr(stream, "zlib", zlib)
    path, held = PACKINGS[packing](tmp_path)
    whole = outcome(path)  # stored as itself or mirrored, by the format
    assert sorted(whole.ravel()) == sorted(ct().ravel())
    content, random = held.read_bytes(), np.random.default_rng(0)
    refused = 0
    for bit in random.integers(0, 8 * len(content), FLIPS):
        spoiled = bytearray(content)
        spoiled[bit // 8] ^= 1 << bit % 8
        held.write_bytes(spoiled)
        found = outcome(path)
        refused += found is None
        assert found is None or np.array_equal(found, whole), bit
    assert refused > FLIPS // 2


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_header_that_claims_fewer_slices_than_are_packed_is_refused(packing, tmp_path):
    if packing == ".nii.gz":
        large = np.tile(np.random.default_rng(0).integers(-1000, 400, (64, 64, 40)).astype(np.int16), (1, 1, 2))
        plain = save(tmp_path / "a.nii", large).read_bytes()
        packed = bytearray(gzip.compress(plain, 0))  # stored: a flipped bit of the header stays one
        at = packed.index(plain[:48]) + 46
        packed[at] = 16  # slices
        path = write(tmp_path / "ct.nii.gz", packed)
    else:
        path, _ = PACKINGS[packing](tmp_path)
        path.write_bytes(path.read_bytes().replace(b"24 20 12", b"24 20 8", 1))
    assert outcome(path) is None


@pytest.mark.parametrize("stream", ["random", "short", "none", "valid"])
def test_the_volume_before_never_comes_out_of_a_damaged_file(stream, tmp_path, capfd):
    before = ct()
    before[1::2] = MARKER
    save(tmp_path / "before.nii", before)
    held = {
        "random": np.random.default_rng(0).bytes(5000),
        "short": zlib.compress(VOXELS)[:3000],
        "none": b"",
        "valid": zlib.compress(VOXELS),
    }[stream]
    path = metaimage(tmp_path, held, PACKED)
    for _ in range(6):
        volumes = [np.asarray(load(tmp_path / "before.nii")).copy() for _ in range(4)]
        assert (volumes[0] == MARKER).any()
        del volumes
        found = outcome(path)
        assert (found is None) == (stream != "valid")
        assert found is None or not (found == MARKER).any()


def test_a_raw_file_cut_anywhere_is_refused(tmp_path, capfd):
    for suffix in ("nii", "mha", "nrrd", "mhd"):
        path = save(tmp_path / "ct.nii") if suffix == "nii" else by_itk(tmp_path / f"ct.{suffix}")
        held = tmp_path / "ct.raw" if suffix == "mhd" else path
        content = held.read_bytes()
        for length in np.linspace(0, len(content) - 1, 20).astype(int):
            held.write_bytes(content[:length])
            assert outcome(path) is None, (suffix, length)
    shutil.rmtree(tmp_path)
