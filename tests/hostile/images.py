"""NIfTI files."""

import gzip
import struct

import nibabel as nib
import numpy as np
from scipy import ndimage

from .case import AFFINE, Table, ct, save, write

table = Table()
refused, read, doubted = table.refused, table.read, table.doubted
CASES = table.cases


def rotated(degrees: float, axes: int = 3) -> np.ndarray:
    """The affine with its first `axes` turned about the last: fewer than all give shear."""
    angle = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = AFFINE.copy()
    affine[:3, :axes] = turn @ affine[:3, :axes]
    return affine


# files that are no NIfTI, or not all of one


@refused("empty .nii.gz", "cannot be read")
def _(folder):
    return write(folder / "ct.nii.gz", b"")


@refused("text named .nii.gz", "cannot be read")
def _(folder):
    return write(folder / "ct.nii.gz", b"patient: unknown\n" * 50)


@refused("random bytes named .nii", "cannot be read")
def _(folder):
    return write(folder / "ct.nii", np.random.default_rng(0).bytes(5000))


@refused("NIfTI cut in its header", "cannot be read")
def _(folder):
    return write(folder / "ct.nii", save(folder / "ct.nii").read_bytes()[:200])


@refused("NIfTI cut in its voxels", "truncated")
def _(folder):
    return write(folder / "ct.nii", save(folder / "ct.nii").read_bytes()[:3000])


@refused("gzipped NIfTI cut short", "cannot be read: truncated")
def _(folder):
    return write(folder / "ct.nii.gz", save(folder / "ct.nii.gz").read_bytes()[:3000])


@refused("gzipped NIfTI with damaged bytes", "cannot be read")
def _(folder):
    content = bytearray(save(folder / "ct.nii.gz").read_bytes())
    content[4000:4010] = b"\0" * 10
    return write(folder / "ct.nii.gz", content)


@refused("gzipped NIfTI with a wrong checksum", "cannot be read")
def _(folder):
    content = save(folder / "ct.nii.gz").read_bytes()
    return write(folder / "ct.nii.gz", content[:-8] + b"\1\2\3\4" + content[-4:])


@refused("plain NIfTI named .nii.gz", "cannot be read")
def _(folder):
    return save(folder / "ct.nii").rename(folder / "ct.nii.gz")


@refused("gzipped NIfTI named .nii", "cannot be read")
def _(folder):
    return save(folder / "ct.nii.gz").rename(folder / "ct.nii")


@refused("half of a NIfTI pair (ni1) named .nii", "not that of a NIfTI in one file")
def _(folder):
    return save(folder / "ct.nii", magic=b"ni1\0")


# headers that claim what is not there


@refused("1 KB .nii with a header that claims 10^9 voxels", "the header claims")
def _(folder):
    return write(folder / "ct.nii", save(folder / "ct.nii", dim=[3, 1000, 1000, 1000, 1, 1, 1, 1]).read_bytes()[:1024])


@refused("1 KB .nii.gz with a header that claims 10^9 voxels", "the header claims")
def _(folder):
    content = save(folder / "a.nii", dim=[3, 1000, 1000, 1000, 1, 1, 1, 1]).read_bytes()[:1024]
    (folder / "a.nii").unlink()
    return write(folder / "ct.nii.gz", gzip.compress(content))


@refused("header that claims 3.5e13 voxels", "voxels of")
def _(folder):
    return save(folder / "ct.nii", dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])


@refused("gzip bomb: 256 MB of zeros in 0.3 MB, as the header claims", "no CT compresses that much")
def _(folder):
    header = save(folder / "a.nii", dim=[3, 1024, 1024, 128, 1, 1, 1, 1]).read_bytes()[:352]
    (folder / "a.nii").unlink()
    return write(folder / "ct.nii.gz", gzip.compress(header) + gzip.compress(bytes(2**26)) * 4)


@refused("gzip bomb: a header extension of 2 GB", "places the voxels")
def _(folder):
    content = bytearray(save(folder / "a.nii", vox_offset=2.1e9).read_bytes())
    (folder / "a.nii").unlink()
    content[348:352] = b"\1\0\0\0"
    content[352:360] = struct.pack("<ii", 2**31 - 16, 6)
    return write(folder / "ct.nii.gz", gzip.compress(bytes(content)) + gzip.compress(bytes(2**26)) * 8)


@read("256 MB of zeros after the voxels, gzipped")
def _(folder):
    content = save(folder / "ct.nii.gz").read_bytes()
    return write(folder / "ct.nii.gz", content + gzip.compress(bytes(2**26)) * 4)


for what, says, fields in (
    ("negative sizes", "not a volume", {"dim": [3, -24, 20, 12, 1, 1, 1, 1]}),
    ("a size of zero", "not a volume", {"dim": [3, 24, 20, 0, 1, 1, 1, 1]}),
    ("nine axes", "cannot be read", {"dim": [9, 24, 20, 12, 1, 1, 1, 1]}),
    ("voxels at byte -1000", "cannot be read", {"vox_offset": -1000}),
    ("voxels at byte nan", "cannot be read", {"vox_offset": np.nan}),
    ("an unknown data type", "cannot be read", {"datatype": 4711}),
    ("128-bit floats", "cannot be read", {"datatype": 1536, "bitpix": 128}),
    ("an infinite scl_inter", "cannot be read", {"scl_slope": 1, "scl_inter": np.inf}),
    ("a spacing of zero", "pixdim", {"pixdim": [1, 0, 9, 12, 0, 0, 0, 0], "sform_code": 0}),
    ("a spacing in metres", "is its unit mm", {"srow_x": [-0.009, 0, 0, 0], "srow_y": [0, -0.009, 0, 0],
                                               "srow_z": [0, 0, 0.012, 0], "qform_code": 0}),
    ("slices 100 mm apart", "spacing 9 x 9 x 100 mm", {"srow_z": [0, 0, 100, 0], "qform_code": 0}),
    ("a singular sform", "singular", {"srow_z": [0, 0, 0, 0], "qform_code": 0}),
    ("two nearly parallel axes", "89.9 degrees off a right", {"srow_y": [0, 9, 9, 0], "srow_z": [0, 0, 0.01, 0],
                                                              "qform_code": 0}),
    ("nan in its sform", "singular or not finite", {"srow_z": [0, 0, np.nan, 0], "qform_code": 0}),
    ("a quaternion longer than 1", "cannot be read", {"quatern_b": 3, "sform_code": 0}),
    ("sform and qform of other axes", "disagree in axes", {"srow_x": [9, 0, 0, 0]}),
    ("sform and qform of other spacing", "disagree in axes or spacing", {"srow_z": [0, 0, 5, 0]}),
):  # fmt: skip
    refused(f"NIfTI with {what}", says)(lambda folder, fields=fields: save(folder / "ct.nii", **fields))

for what, note, fields in (
    ("scl_slope nan", "", {"scl_slope": np.nan}),
    ("scl_slope infinite", "", {"scl_slope": np.inf}),
    ("scl_slope 0", "", {"scl_slope": 0, "scl_inter": 500}),
    ("sform and qform 40 mm apart", "the sform was used", {"qoffset_x": 140}),
):
    read(f"NIfTI with {what}", note)(lambda folder, fields=fields: save(folder / "ct.nii", **fields))


@doubted("NIfTI with no orientation (codes 0)", "states no orientation")
def _(folder):
    return save(folder / "ct.nii", sform_code=0, qform_code=0)


for what, says, make in (
    ("two axes", "not a volume", lambda: ct()[:, :, 0]),
    ("one slice", "not a volume", lambda: ct()[:, :, :1]),
    ("two time points", "not a volume", lambda: np.stack([ct(), ct()], -1)),
    ("one slice and time points", "not a volume", lambda: ct()[:, :, None]),
    ("RGB voxels", "RGB voxels", lambda: np.zeros((8, 8, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])),
    ("complex voxels", "complex64 voxels", lambda: ct().astype(np.complex64)),
    ("one voxel nan", "1 voxels are not finite", lambda: np.where(ct() == ct().max(), np.nan, ct()).astype("f4")),
    ("one voxel infinite", "1 voxels are not finite", lambda: np.where(ct() == ct().max(), np.inf, ct()).astype("f4")),
    ("64-bit floats beyond 32 bits", "not finite", lambda: ct() * 1e300),
    ("bytes in the wrong order", "HU", lambda: ct().byteswap()),
    ("all air", "no value between", lambda: np.full((8, 8, 8), -1000, np.int16)),
    ("all zero", "not HU", lambda: np.zeros((8, 8, 8), np.int16)),
    ("a mask", "not HU", lambda: (ct() > 0).astype(np.uint8)),
    ("a mask of -100 and 100", "mask", lambda: np.where(ct() > 0, 100, -100).astype(np.int16)),
    ("an MR's values", "not HU", lambda: np.clip(ct() + 1000, 0, None) * 2),
    ("an MR's values, some negative", "an MR or a PET", lambda: ((ct() + 1000) * 1.5 - 30).astype(np.int16)),
    ("a skull's values, as of a head", "a CT of the head", lambda: skull()),
    ("an MR of mean 0 and deviation 1", "normalised", lambda: ((ct() + 500) / 450).astype("f4")),
    ("a PET's values", "not HU", lambda: np.maximum(0, ct() / 50).astype("f4")),
    ("values from 0 to 1", "not HU", lambda: ((ct() + 1100.0) / 2000).astype("f4")),
    ("stored values without their rescale", "not HU", lambda: np.clip(ct() + 1024, 0, None)),
    ("the rescale applied twice", "rescale applied twice", lambda: ct() - 1024),
    ("values of 8 bits", "not HU", lambda: np.clip(ct() / 4 + 128, 0, 255).astype(np.uint8)),
):
    refused(f"NIfTI with {what}", says)(lambda folder, make=make: save(folder / "ct.nii.gz", make()))

for what, note, make, changed in (
    ("a singleton fourth axis", "", lambda: ct()[..., None], False),
    ("big-endian numbers", "", lambda: ct().astype(">i2"), False),
    ("64-bit floats", "", lambda: ct().astype(np.float64), False),
    *(
        (f"padding of {value}", "240 voxels of padding", lambda value=value: padded(value), True)
        for value in (-1500, -2000, -2049, -3024, -8192, -10000, -32768)
    ),
    ("padding of -3024, resampled", "voxels of padding", lambda: resampled(padded(-3024)), True),
    ("a window of -40 to 160 HU", "", lambda: ct().clip(-40, 160), True),
):
    read(f"NIfTI with {what}", note, changed)(lambda folder, make=make: save(folder / "ct.nii.gz", make()))


def skull() -> np.ndarray:
    image = ct()
    image[:, :, 3:] += np.where(image[:, :, 3:] > -20, 600, 0).astype(np.int16)
    return image


def padded(value: int) -> np.ndarray:
    image = ct()
    image[0] = value
    return image


def resampled(image: np.ndarray) -> np.ndarray:
    """By cubic splines, which overstep at the edges."""
    return ndimage.shift(image.astype(float), (0.4, 0.3, 0), order=3, mode="nearest").round().astype(np.int16)


@read("NIfTI-2")
def _(folder):
    nib.save(nib.Nifti2Image(ct(), AFFINE), folder / "ct.nii.gz")
    return folder / "ct.nii.gz"


@read("NIfTI with scl_slope 2 and scl_inter -24")
def _(folder):
    return save(folder / "ct.nii", ((ct().astype(int) + 24) // 2).astype(np.int16), scl_slope=2, scl_inter=-24)


@refused("NIfTI sheared by 12 degrees", "12.0 degrees off a right angle")
def _(folder):
    return save(folder / "ct.nii.gz", affine=rotated(12, 2), **{})


@read("NIfTI sheared by 0.3 degrees", "straightened by 0.3 degrees", changed=True)
def _(folder):
    return save(folder / "ct.nii.gz", affine=rotated(0.3, 2))


@read("NIfTI turned by 30 degrees", changed=True)
def _(folder):
    return save(folder / "ct.nii.gz", affine=rotated(30))


@doubted("NIfTI with an identity affine", "affine is an identity")
def _(folder):
    return save(folder / "ct.nii.gz", affine=np.eye(4))
