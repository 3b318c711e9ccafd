"""A mask out, and read back by others: `scripts/writing`."""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom import rewrite, write_series
from matplotlib.path import Path as Polygon
from monai.transforms import LoadImage
from scipy import ndimage

from scripts.reading.geometry import straighten
from scripts.writing import complete, write_manifest, write_nifti, write_rtstruct, write_seg

SOFTWARE = {"algorithm": "RA V-Net", "version": "1.2.3", "weights": "ab" * 32}
DICOM = {"SEG": write_seg, "RTSTRUCT": write_rtstruct}
SHAPE, SPACING, CENTRE = (48, 40, 14), (2.0, 2.3, 5.0), np.array([30.0, -20.0, 110.0])
RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])

# The directions, in RAS, of a slice's row, of its column, and from slice to slice.
ACQUISITIONS = {
    "axial": [[-1, 0, 0], [0, -1, 0], [0, 0, 1]],
    "axial, feet first": [[-1, 0, 0], [0, -1, 0], [0, 0, -1]],
    "prone": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "coronal": [[-1, 0, 0], [0, 0, -1], [0, -1, 0]],
    "sagittal": [[0, -1, 0], [0, 0, -1], [-1, 0, 0]],
    "oblique": [[-0.96, -0.28, 0], [0.28 * 0.8, -0.96 * 0.8, -0.6], [0.28 * 0.6, -0.96 * 0.6, 0.8]],
}


def liver(world):
    """In RAS mm: two parts, one with a channel through it and a rod in the channel; like no mirror image of itself."""

    def ellipsoid(centre, *radii):
        return (((world - CENTRE - centre) / radii) ** 2).sum(-1) < 1

    channel = ellipsoid([6, 4, 0], 12, 9, 500) & ~ellipsoid([9, 5, 0], 4.1, 4.1, 500)
    return (ellipsoid([4, 3, 2], 30, 27, 24) & ~channel) | ellipsoid([-28, 20, -14], 9, 8, 7)


def affine_of(acquisition, shape=SHAPE):
    affine = np.eye(4)
    affine[:3, :3] = np.array(ACQUISITIONS[acquisition], float).T * SPACING
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def voxel_centres(affine, shape):
    return np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ affine[:3, :3].T + affine[:3, 3]


def study(folder, acquisition="axial", change=None):
    """A series on the disk, and the liver on its grid: (mask, affine, files)."""
    affine = affine_of(acquisition)
    mask = liver(voxel_centres(affine, SHAPE))
    return mask, affine, write_series(np.where(mask, 100, -50), affine, folder, change=change)


def pixel_centres(position, orientation, spacing, shape):
    """RAS mm of each pixel, by PS3.3 C.7.6.2.1.1: (rows, columns, 3)."""
    row, column = np.array(orientation, float)[:3], np.array(orientation, float)[3:]
    r, c = np.meshgrid(*map(np.arange, shape), indexing="ij")
    lps = np.array(position, float) + r[..., None] * float(spacing[0]) * column + c[..., None] * float(spacing[1]) * row
    return lps * RAS_TO_LPS


def read_seg(path):
    """Each frame of a SEG: its pixels, where they are in RAS, and the slice that it refers to."""
    ds = pydicom.dcmread(path)
    shared = ds.SharedFunctionalGroupsSequence[0]
    orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    pixels = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    for frame, groups in zip(pixels, ds.PerFrameFunctionalGroupsSequence, strict=True):
        position = groups.PlanePositionSequence[0].ImagePositionPatient
        source = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        yield frame > 0, pixel_centres(position, orientation, spacing, frame.shape), source


def read_rtstruct(path, files, combine):
    """Each contoured slice: the pixels whose centres are in its polygons, where they are in RAS, and its UID."""
    slices = {ds.SOPInstanceUID: ds for ds in map(pydicom.dcmread, files)}
    masks = {}
    for contour in pydicom.dcmread(path).ROIContourSequence[0].get("ContourSequence", []):
        uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
        ds = slices[uid]
        row, column = np.split(np.array(ds.ImageOrientationPatient, float), 2)
        from_corner = np.reshape(contour.ContourData, (-1, 3)).astype(float) - np.array(ds.ImagePositionPatient, float)
        assert contour.NumberOfContourPoints == len(from_corner) >= 3
        assert np.abs(from_corner @ np.cross(row, column)).max() < 1e-3  # in the slice's plane
        corners = np.stack([from_corner @ column / ds.PixelSpacing[0], from_corner @ row / ds.PixelSpacing[1]], -1)
        pixels = np.stack(np.meshgrid(np.arange(ds.Rows), np.arange(ds.Columns), indexing="ij"), -1)
        inside = Polygon(np.concatenate([corners, corners[:1]])).contains_points(pixels.reshape(-1, 2))
        empty = np.zeros((ds.Rows, ds.Columns), bool)
        masks[uid] = combine(masks.get(uid, empty), inside.reshape(empty.shape))
    for uid, frame in masks.items():
        ds = slices[uid]
        yield (
            frame,
            pixel_centres(ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing, frame.shape),
            uid,
        )


def dice_in_world(frames, count):
    """Dice between frames as read and the liver, which has `count` voxels in the whole series."""
    both = found = 0
    for pixels, world, _ in frames:
        both += (pixels & liver(world)).sum()
        found += pixels.sum()
    return 2 * both / (found + count)


@pytest.mark.parametrize("acquisition", ACQUISITIONS)
def test_dicom_results_lie_where_the_liver_is_whatever_the_series_and_the_masks_axes(acquisition, tmp_path):
    mask, affine, files = study(tmp_path / "ct", acquisition)
    in_slices = [ndimage.label(mask[:, :, k])[1] > 1 for k in range(SHAPE[2])]
    holes = [(ndimage.binary_fill_holes(mask[:, :, k]) ^ mask[:, :, k]).any() for k in range(SHAPE[2])]
    assert any(in_slices) and (acquisition not in ("axial", "oblique") or any(holes))  # the phantom is what it says
    shuffled = random.Random(acquisition).sample(files, len(files))
    for codes in ("LPS", "RAS", "SPL", "IRA", "PIR", "ASL"):
        image = nib.Nifti1Image(mask.astype(np.uint8), affine)
        change = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes))
        turned = image.as_reoriented(change)
        for kind, write in DICOM.items():
            write(np.asarray(turned.dataobj), turned.affine, shuffled, tmp_path / kind / f"{codes}.dcm", **SOFTWARE)
    for kind in DICOM:  # one mask, one file, however it is stored
        assert len({file.read_bytes() for file in (tmp_path / kind).iterdir()}) == 1
    assert dice_in_world(read_seg(tmp_path / "SEG" / "RAS.dcm"), mask.sum()) >= 0.999
    for combine in (np.logical_or, np.logical_xor):
        contours = read_rtstruct(tmp_path / "RTSTRUCT" / "RAS.dcm", files, combine)
        assert dice_in_world(contours, mask.sum()) >= 0.999


def test_a_frame_refers_to_the_slice_at_its_place(tmp_path):
    mask, affine, files = study(tmp_path / "ct")
    write_seg(mask, affine, files, tmp_path / "seg.dcm", **SOFTWARE)
    places = {ds.SOPInstanceUID: ds.ImagePositionPatient for ds in map(pydicom.dcmread, files)}
    frames = list(read_seg(tmp_path / "seg.dcm"))
    assert len(frames) == mask.any(axis=(0, 1)).sum()  # those with liver
    for _, world, source in frames:
        np.testing.assert_allclose(world[0, 0] * RAS_TO_LPS, places[source], atol=1e-4)


IDENTITY = {
    "SpecificCharacterSet": "ISO_IR 192",
    "PatientName": "Müller^Zoë",
    "PatientID": "0" * 80,  # longer than DICOM allows
    "PatientBirthDate": "1950",  # no date
    "PatientSex": "male",  # no code
    "StudyDate": "20260214",
    "StudyTime": "101112",
    "StudyID": "7",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "Doe^Jane",
    "StudyDescription": "Abdömen",
}


def identify(_, ds):
    with pydicom.config.disable_value_validation():
        for keyword, value in IDENTITY.items():
            setattr(ds, keyword, value)


@pytest.mark.parametrize("kind", DICOM)
def test_a_result_stays_with_its_patient_study_and_series(kind, tmp_path, recwarn):
    mask, affine, files = study(tmp_path / "ct", change=identify)
    recwarn.clear()
    DICOM[kind](mask, affine, files, tmp_path / "x.dcm", **SOFTWARE)
    assert not [
        warning for warning in recwarn if "Invalid value" in str(warning.message)
    ]  # that would name the patient
    ds, source = pydicom.dcmread(tmp_path / "x.dcm"), pydicom.dcmread(files[0])
    for keyword in (*IDENTITY, "StudyInstanceUID", "FrameOfReferenceUID"):
        assert ds[keyword].value == source[keyword].value
    assert ds.Modality == kind and ds.SeriesInstanceUID != source.SeriesInstanceUID
    assert ds.SeriesDate == source.SeriesDate  # and so no clock's
    if kind == "SEG":
        [series] = ds.ReferencedSeriesSequence
        referenced = series.ReferencedInstanceSequence
    else:
        [series] = ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence
        referenced = series.ContourImageSequence
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert {one.ReferencedSOPInstanceUID for one in referenced} == {pydicom.dcmread(f).SOPInstanceUID for f in files}


def test_the_segment_and_the_roi_are_the_liver_by_this_software(tmp_path):
    mask, affine, files = study(tmp_path / "ct")
    for kind, write in DICOM.items():
        write(mask, affine, files, tmp_path / kind, **SOFTWARE)
    seg, rt = (pydicom.dcmread(tmp_path / kind) for kind in DICOM)
    [segment] = seg.SegmentSequence
    assert seg.SegmentationType == "BINARY" and segment.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("RA V-Net", "1.2.3")
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"  # anatomical structure
    roi, observation = rt.StructureSetROISequence[0], rt.RTROIObservationsSequence[0]
    assert (roi.ROIGenerationAlgorithm, observation.RTROIInterpretedType) == ("AUTOMATIC", "ORGAN")
    codes = segment.SegmentedPropertyTypeCodeSequence[0], observation.RTROIIdentificationCodeSequence[0]
    assert {(code.CodeValue, code.CodingSchemeDesignator) for code in codes} == {("10200004", "SCT")}
    assert seg.DeviceSerialNumber == rt.DeviceSerialNumber == SOFTWARE["weights"]
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SpacingBetweenSlices) == pytest.approx(SPACING[2])  # not SliceThickness


@pytest.mark.parametrize("kind", DICOM)
def test_an_anonymous_series_without_a_frame_of_reference_is_served(kind, tmp_path):
    def strip(_, ds):
        del ds.PatientName, ds.PatientID, ds.FrameOfReferenceUID, ds.SliceThickness, ds.SeriesDate, ds.SeriesNumber

    mask, affine, files = study(tmp_path / "ct", change=strip)
    DICOM[kind](mask, affine, files, tmp_path / "x.dcm", **SOFTWARE)
    ds = pydicom.dcmread(tmp_path / "x.dcm")
    assert ds["PatientName"].is_empty and ds["PatientID"].is_empty  # required, even if empty
    write_seg(mask, affine, files, tmp_path / "seg.dcm", **SOFTWARE)
    assert ds.FrameOfReferenceUID == pydicom.dcmread(tmp_path / "seg.dcm").FrameOfReferenceUID


def test_the_same_mask_gives_the_same_bytes_at_another_time_and_another_mask_other_uids(tmp_path, monkeypatch):
    mask, affine, files = study(tmp_path / "ct")
    other = mask.copy()
    other[tuple(np.argwhere(mask)[0])] = False
    for name, content, clock in (("a", mask, 0), ("b", mask, 1e9), ("c", other, 0)):
        monkeypatch.setattr("time.time", lambda clock=clock: clock)
        write_nifti(content, affine, tmp_path / f"{name}.nii.gz")
        for kind, write in DICOM.items():
            write(content, affine, files, tmp_path / f"{name}.{kind}", **SOFTWARE)
    for end in ("nii.gz", *DICOM):
        a, b, c = ((tmp_path / f"{name}.{end}").read_bytes() for name in "abc")
        assert a == b != c
    for kind in DICOM:
        a, c = (pydicom.dcmread(tmp_path / f"{name}.{kind}") for name in "ac")
        assert a.SOPInstanceUID != c.SOPInstanceUID and a.SeriesInstanceUID != c.SeriesInstanceUID


def test_an_empty_mask_is_an_empty_frame_and_a_roi_without_contours(tmp_path):
    mask, affine, files = study(tmp_path / "ct")
    for kind, write in DICOM.items():
        write(np.zeros_like(mask), affine, files, tmp_path / kind, **SOFTWARE)
    [(frame, _, source)] = read_seg(tmp_path / "SEG")
    assert not frame.any() and source in {pydicom.dcmread(file).SOPInstanceUID for file in files}
    seg, rt = (pydicom.dcmread(tmp_path / kind) for kind in DICOM)
    assert len(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == len(files)
    assert rt.StructureSetROISequence[0].ROIName == "Liver" and "ContourSequence" not in rt.ROIContourSequence[0]


def test_a_series_whose_axes_lean_a_little_keeps_its_pixels(tmp_path):
    lean = np.tan(np.radians(0.4)) * SPACING[2]

    def shear(z, ds):
        ds.ImagePositionPatient = [*ds.ImagePositionPatient[:1], float(ds.ImagePositionPatient[1]) + z * lean,
                                   ds.ImagePositionPatient[2]]  # fmt: skip

    mask, affine, files = study(tmp_path / "ct", change=shear)
    sheared = affine.copy()
    sheared[1, 2] -= lean
    straight, notes = straighten(sheared, SHAPE, tmp_path)
    assert notes and not np.allclose(straight, sheared, atol=1e-3)
    stored = {pydicom.dcmread(file).SOPInstanceUID: mask[:, :, z].T for z, file in enumerate(files)}
    for kind, write in DICOM.items():
        write(mask, straight, files, tmp_path / kind, **SOFTWARE)
    for frames in (read_seg(tmp_path / "SEG"), read_rtstruct(tmp_path / "RTSTRUCT", files, np.logical_or)):
        frames = list(frames)
        assert len(frames) == mask.any(axis=(0, 1)).sum()
        for frame, _, source in frames:
            np.testing.assert_array_equal(frame, stored[source])


def shifted(affine, *voxels):
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :3] @ voxels
    return moved


REFUSED = {
    "another shape": (lambda m, a, f: (m[1:], a, f), "not the planes"),
    "beside": (lambda m, a, f: (m, shifted(a, 1, 0, 0), f), "not the planes"),
    "a slice higher": (lambda m, a, f: (m, shifted(a, 0, 0, 1), f), "not the planes"),
    "turned by 45 degrees": (lambda m, a, f: (m, np.diag([1, 1, 1, 1.0]) @ turn(a), f), "not the planes"),
    "a file missing": (lambda m, a, f: (m, a, f[:3] + f[4:]), "not the planes"),
    "a file twice": (lambda m, a, f: (m, a, [*f[:3], f[2], *f[4:]]), "not the planes"),
    "a label map": (lambda m, a, f: (m * 2, a, f), "expected a mask"),
    "probabilities": (lambda m, a, f: (m * 0.5, a, f), "expected a mask"),
    "no position": (lambda m, a, f: (m, a, [rewrite(f[0], ImagePositionPatient=None) or f[0], *f[1:]]), "Position"),
    "multiframe": (lambda m, a, f: (m, a, [rewrite(f[0], NumberOfFrames=3) or f[0], *f[1:]]), "several frames"),
}


def turn(affine):
    half = np.sqrt(0.5)
    return np.array([[half, -half, 0, 0], [half, half, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_its_series_is_refused_in_one_line(case, tmp_path):
    spoil, reason = REFUSED[case]
    given = spoil(*study(tmp_path / "ct"))
    for kind, write in DICOM.items():
        with pytest.raises(ValueError, match=reason) as caught:
            write(*given, tmp_path / "out" / kind, **SOFTWARE)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy, of Debian's dicom3tools, is not installed")
@pytest.mark.parametrize("content", ["liver", "empty"])
def test_dciodvfy_finds_no_error(content, tmp_path):
    mask, affine, files = study(tmp_path / "ct")
    for kind, write in DICOM.items():
        write(mask if content == "liver" else mask & False, affine, files, tmp_path / kind, **SOFTWARE)
        said = subprocess.run(["dciodvfy", tmp_path / kind], capture_output=True, text=True).stderr
        assert "Error" not in said, said


@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii"])
def test_a_mask_is_read_back_by_others_on_the_same_grid(name, tmp_path):
    affine = affine_of("oblique")
    mask = liver(voxel_centres(affine, SHAPE))
    for content in (mask, mask.astype(np.int64), np.asfortranarray(mask)):
        write_nifti(content, affine, tmp_path / name)
        image = nib.load(tmp_path / name)
        assert image.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(np.asarray(image.dataobj), mask)
    for form, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert code == 1
        np.testing.assert_allclose(form, affine, atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"
    other = itk.imread(tmp_path / name)
    np.testing.assert_array_equal(itk.array_from_image(other), mask.T)
    corner = np.array(other.TransformIndexToPhysicalPoint([SHAPE[0] - 1, 2, 3])) * RAS_TO_LPS
    np.testing.assert_allclose(corner, voxel_centres(affine, SHAPE)[-1, 2, 3], atol=1e-3)


def test_a_sheared_affine_is_kept_in_the_sform(tmp_path):
    affine = affine_of("axial")
    affine[1, 2] = 1.0
    write_nifti(np.ones((4, 5, 6), bool), affine, tmp_path / "x.nii.gz")
    image = nib.load(tmp_path / "x.nii.gz")
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    assert image.header["qform_code"] == 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_probabilities_come_back_within_a_step_and_on_the_same_side_of_a_half(dtype, tmp_path):
    half = np.array([0, np.nextafter(dtype(0.5), dtype(0)), 0.5, np.nextafter(dtype(0.5), dtype(1)), 1], dtype)
    values = np.concatenate([np.random.default_rng(0).random(995).astype(dtype), half]).reshape(10, 10, 10)
    write_nifti(values, np.eye(4), tmp_path / "p.nii.gz")
    image = nib.load(tmp_path / "p.nii.gz")
    assert image.get_data_dtype() == np.uint8
    read = image.get_fdata()
    assert np.abs(read - values).max() <= 0.5 / 255 + 1e-6
    np.testing.assert_array_equal(read >= 0.5, values >= 0.5)


@pytest.mark.parametrize("value", [2, -1, 1.5, np.nan])
def test_what_is_no_mask_and_no_probability_is_refused(value, tmp_path):
    with pytest.raises(ValueError, match="0 to 1"):
        write_nifti(np.full((3, 3, 3), value), np.eye(4), tmp_path / "x.nii.gz")
    assert not any(tmp_path.iterdir())


@pytest.fixture
def results(tmp_path):
    (tmp_path / "deep").mkdir()
    files = [tmp_path / "mask.nii.gz", tmp_path / "deep" / "seg.dcm"]
    for file in files:
        file.write_bytes(os.urandom(5000))
    about = {"input": "12ab", "versions": {"monai": "1.6"}, "options": ("fast", 1.5, None)}
    write_manifest(tmp_path / "manifest.json", files, **about)
    return tmp_path / "manifest.json", files, about


def test_a_manifest_is_complete_here_and_wherever_its_folder_is_moved(results):
    manifest, _, about = results
    assert complete(manifest, **about)
    moved = shutil.copytree(manifest.parent, manifest.parent.with_name(f"{manifest.parent.name} moved"))
    assert complete(moved / "manifest.json", **about)
    before = manifest.read_bytes()
    write_manifest(manifest, results[1][::-1], **dict(reversed(about.items())))
    assert manifest.read_bytes() == before  # however the files and what it is about are ordered


def flip(file):
    content = bytearray(file.read_bytes())
    content[2500] ^= 1
    file.write_bytes(content)


HARM = {
    "a flipped bit": lambda manifest, file: flip(file),
    "a truncated file": lambda manifest, file: os.truncate(file, 4999),
    "a longer file": lambda manifest, file: file.write_bytes(file.read_bytes() + b" "),
    "a missing file": lambda manifest, file: file.unlink(),
    "a folder in its place": lambda manifest, file: file.unlink() or file.mkdir(),
    "no manifest": lambda manifest, file: manifest.unlink(),
    "a truncated manifest": lambda manifest, file: os.truncate(manifest, 40),
    "an empty manifest": lambda manifest, file: manifest.write_text(""),
    "another JSON": lambda manifest, file: manifest.write_text('["files"]'),
    "a manifest of odd types": lambda manifest, file: manifest.write_text('{"about": {}, "files": [1]}'),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_harmed_result_is_not_complete(harm, results):
    manifest, files, about = results
    HARM[harm](manifest, files[1])
    assert not complete(manifest, **about)


def test_a_result_of_another_input_or_software_is_not_complete(results):
    manifest, _, about = results
    assert not complete(manifest, **{**about, "input": "12ac"})
    assert not complete(manifest, **{**about, "versions": {"monai": "1.7"}})
    assert not complete(manifest, **about, device="cpu")
    assert not complete(manifest, input=about["input"])


def test_a_manifest_names_only_files_that_are_with_it(results):
    manifest, files, _ = results
    with pytest.raises(ValueError):
        write_manifest(manifest.parent / "deep" / "manifest.json", files)
    with pytest.raises(OSError):
        write_manifest(manifest, [manifest.parent / "missing"])


# Each writer once, in a process that may not write: as a child, since limits and users cannot be had back.
CHILD = """
import json, os, resource, sys
from pathlib import Path
import numpy as np
from scripts.writing import *

series, out, trouble = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
software = {"algorithm": "a", "version": "1", "weights": "0"}
mask, affine, files = np.load(series / "mask.npy"), np.load(series / "affine.npy"), sorted(series.glob("IM*"))
writers = {
    "nifti": lambda path: write_nifti(mask, affine, path),
    "seg": lambda path: write_seg(mask, affine, files, path, **software),
    "rtstruct": lambda path: write_rtstruct(mask, affine, files, path, **software),
    "manifest": lambda path: write_manifest(path, [], padding="x" * 10000),
}
if trouble == "full disk":
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
elif os.geteuid() == 0:
    os.setuid(65534)
said = {}
for name, write in writers.items():
    try:
        write(out / name)
    except OSError as error:
        said[name] = str(error)
print(json.dumps(said))
"""


@pytest.mark.parametrize("trouble", ["full disk", "read-only folder"])
def test_where_nothing_can_be_written_the_error_is_one_line_and_nothing_is_left(trouble, tmp_path):
    noise = np.random.default_rng(0).random(SHAPE) < 0.5  # so that no result is small
    out = Path(tempfile.mkdtemp())  # where another user may go
    try:
        series = out / "ct"
        write_series(np.zeros(SHAPE), affine_of("axial"), series)
        np.save(series / "mask.npy", noise)
        np.save(series / "affine.npy", affine_of("axial"))
        for path in (out, series):
            path.chmod(0o755)
        results = out / "results"
        results.mkdir()
        results.chmod(0o755 if trouble == "full disk" else 0o555)
        root = Path(__file__).parents[1] / "ravnet_bundle"
        child = subprocess.run(
            [sys.executable, "-c", CHILD, series, results, trouble],
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
        )
        assert child.returncode == 0, child.stderr
        said = json.loads(child.stdout)
        assert set(said) == {"nifti", "seg", "rtstruct", "manifest"}
        reason = "File too large" if trouble == "full disk" else "Permission denied"
        assert all(reason in text and "\n" not in text for text in said.values())
        assert not any(results.iterdir())
    finally:
        shutil.rmtree(out)


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def read_volume(frames, affine, shape):
    """Frames as read -> a mask on a grid, by where their pixels are."""
    volume = np.zeros(shape, bool)
    for pixels, world, _ in frames:
        at = np.rint((world[pixels] - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T).astype(int)
        volume[tuple(at.T)] = True
    return volume


@pytest.mark.parametrize("kind", DICOM)
def test_dcmqis_segmentation_of_a_real_series_is_given_back(kind, data_dir, tmp_path):
    files = sorted((data_dir / "dcmqi_ct3" / "dicom").iterdir())
    image = LoadImage(image_only=True)(data_dir / "dcmqi_ct3" / "dicom")
    affine = image.affine.numpy()
    theirs = read_volume(read_seg(data_dir / "dcmqi_ct3" / "liver_seg.dcm"), affine, image.shape)
    assert theirs.sum() > 100_000
    DICOM[kind](theirs, affine, files, tmp_path / kind, **SOFTWARE)
    frames = read_seg(tmp_path / kind) if kind == "SEG" else read_rtstruct(tmp_path / kind, files, np.logical_xor)
    assert dice(read_volume(frames, affine, image.shape), theirs) >= 0.999


def test_a_real_liver_comes_back_from_seg_and_contours(data_dir, tmp_path):
    files = sorted((data_dir / "chaos_ct" / "dicom").iterdir())[20:50:3]  # every third slice, to be quick
    mask = np.asarray(nib.load(data_dir / "chaos_ct" / "liver.nii.gz").dataobj) > 0
    positions = np.array([pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient for file in files], float)
    affine = nib.load(data_dir / "chaos_ct" / "liver.nii.gz").affine
    index = np.rint(((positions * RAS_TO_LPS - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T)[:, 2]).astype(int)
    order = np.sort(index)
    thin, thinned = mask[:, :, order], affine.copy()
    thinned[:3, 2] *= order[1] - order[0]
    thinned[:3, 3] += affine[:3, 2] * order[0]
    for kind, write in DICOM.items():
        write(thin, thinned, files, tmp_path / kind, **SOFTWARE)
    assert dice(read_volume(read_seg(tmp_path / "SEG"), thinned, thin.shape), thin) >= 0.999
    contours = read_rtstruct(tmp_path / "RTSTRUCT", files, np.logical_or)
    assert dice(read_volume(contours, thinned, thin.shape), thin) >= 0.98
