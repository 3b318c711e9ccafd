"""A liver out as DICOM SEG or RTSTRUCT, and read back by others: `scripts/writing`."""

import json
import random
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pydicom
import pytest
from commands import FILES
from dicom_reading import (
    ACQUISITIONS,
    DICOM,
    RAS_TO_LPS,
    SHAPE,
    SOFTWARE,
    SPACING,
    dice,
    dice_in_world,
    read_rtstruct,
    read_seg,
    read_volume,
    study,
)
from monai.transforms import LoadImage
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from pydicom.uid import generate_uid
from scipy import ndimage
from series_files import rewrite, write_series

from ravnet_bundle import segment
from scripts.phantom import make_phantom
from scripts.reading.checks import straighten
from scripts.writing import write_nifti, write_seg


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
            write(np.asarray(turned.dataobj), turned.affine, shuffled, tmp_path / kind / f"{codes}.dcm", SOFTWARE)
    for kind in DICOM:  # one mask, one file, however it is stored
        assert len({file.read_bytes() for file in (tmp_path / kind).iterdir()}) == 1
    assert dice_in_world(read_seg(tmp_path / "SEG" / "RAS.dcm"), mask.sum()) >= 0.999
    for combine in (np.logical_or, np.logical_xor):
        contours = read_rtstruct(tmp_path / "RTSTRUCT" / "RAS.dcm", files, combine)
        assert dice_in_world(contours, mask.sum()) >= 0.999


def test_a_frame_refers_to_the_slice_at_its_place(tmp_path):
    mask, affine, files = study(tmp_path / "ct")
    write_seg(mask, affine, files, tmp_path / "seg.dcm", SOFTWARE)
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
    DICOM[kind](mask, affine, files, tmp_path / "x.dcm", SOFTWARE)
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
        write(mask, affine, files, tmp_path / kind, SOFTWARE)
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
    assert seg.DeviceSerialNumber == rt.DeviceSerialNumber == SOFTWARE.weights
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert float(measures.SpacingBetweenSlices) == pytest.approx(SPACING[2])  # not SliceThickness


@pytest.mark.parametrize("kind", DICOM)
def test_an_anonymous_series_without_a_frame_of_reference_is_served(kind, tmp_path):
    def strip(_, ds):
        del ds.PatientName, ds.PatientID, ds.FrameOfReferenceUID, ds.SliceThickness, ds.SeriesDate, ds.SeriesNumber

    mask, affine, files = study(tmp_path / "ct", change=strip)
    DICOM[kind](mask, affine, files, tmp_path / "x.dcm", SOFTWARE)
    ds = pydicom.dcmread(tmp_path / "x.dcm")
    assert ds["PatientName"].is_empty and ds["PatientID"].is_empty  # required, even if empty
    write_seg(mask, affine, files, tmp_path / "seg.dcm", SOFTWARE)
    assert ds.FrameOfReferenceUID == pydicom.dcmread(tmp_path / "seg.dcm").FrameOfReferenceUID


def odd_frames(z, ds):
    ds.FrameOfReferenceUID = generate_uid()


def odd_numbers(z, ds):
    texts = {0x00180050: b"9.0mm ", 0x00101020: b"tall", 0x00282112: b"ten:1 "}  # SliceThickness, PatientSize, a ratio
    for tag, text in texts.items():
        ds.add(RawDataElement(Tag(tag), "DS", len(text), text, 0, False, True))
    ds.add(RawDataElement(Tag(0x00200011), "IS", 2, b"2a", 0, False, True))  # SeriesNumber


@pytest.mark.parametrize("kind", DICOM)
@pytest.mark.parametrize("odd", [odd_frames, odd_numbers])
def test_a_series_with_odd_headers_is_served_in_one_frame_of_reference(odd, kind, tmp_path):
    mask, affine, files = study(tmp_path / "ct", change=odd)
    for name, order in (("a", files), ("b", files[::-1])):
        DICOM[kind](mask, affine, order, tmp_path / name, SOFTWARE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    ds = pydicom.dcmread(tmp_path / "a")
    assert ds.FrameOfReferenceUID in {pydicom.dcmread(file).FrameOfReferenceUID for file in files}
    frames = read_seg(tmp_path / "a") if kind == "SEG" else read_rtstruct(tmp_path / "a", files, np.logical_or)
    assert dice_in_world(frames, mask.sum()) >= 0.999


def test_a_series_of_which_no_dicom_file_can_be_made_keeps_mask_measures_and_report(tmp_path, caplog):
    phantom = make_phantom(seed=2, axcodes="LPS", shape=(52, 48, 18), spacing=(7, 7, 12))
    for file in write_series(phantom.image, phantom.affine, tmp_path / "ct" / "no-uid"):
        rewrite(file, SOPInstanceUID=None, PatientName="Zyxwv^Quillon")
    (outcome,) = segment(tmp_path / "ct", tmp_path / "out", seg=True, rtstruct=True)
    assert outcome.status == "done"
    folder = tmp_path / "out" / outcome.name
    assert sorted(file.name for file in folder.iterdir()) == FILES
    notes = json.loads((folder / "measures.json").read_text())["notes"]
    for kind in DICOM:
        (note,) = (note for note in notes if note.startswith(f"no {kind} was written"))
        assert "SOPInstanceUID" in note and note in (folder / "report.html").read_text()
        assert any(note in record.getMessage() and record.levelname == "ERROR" for record in caplog.records)
        assert str(tmp_path) not in note


def test_the_same_mask_gives_the_same_bytes_at_another_time_and_another_mask_other_uids(tmp_path, monkeypatch):
    mask, affine, files = study(tmp_path / "ct")
    other = mask.copy()
    other[tuple(np.argwhere(mask)[0])] = False
    for name, content, clock in (("a", mask, 0), ("b", mask, 1e9), ("c", other, 0)):
        monkeypatch.setattr("time.time", lambda clock=clock: clock)
        write_nifti(content, affine, tmp_path / f"{name}.nii.gz")
        for kind, write in DICOM.items():
            write(content, affine, files, tmp_path / f"{name}.{kind}", SOFTWARE)
    for end in ("nii.gz", *DICOM):
        a, b, c = ((tmp_path / f"{name}.{end}").read_bytes() for name in "abc")
        assert a == b != c
    for kind in DICOM:
        a, c = (pydicom.dcmread(tmp_path / f"{name}.{kind}") for name in "ac")
        assert a.SOPInstanceUID != c.SOPInstanceUID and a.SeriesInstanceUID != c.SeriesInstanceUID


def test_an_empty_mask_is_an_empty_frame_and_a_roi_without_contours(tmp_path):
    mask, affine, files = study(tmp_path / "ct")
    for kind, write in DICOM.items():
        write(np.zeros_like(mask), affine, files, tmp_path / kind, SOFTWARE)
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
        write(mask, straight, files, tmp_path / kind, SOFTWARE)
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
            write(*given, tmp_path / "out" / kind, SOFTWARE)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy, of Debian's dicom3tools, is not installed")
@pytest.mark.parametrize("content", ["liver", "empty"])
def test_dciodvfy_finds_no_error(content, tmp_path):
    mask, affine, files = study(tmp_path / "ct")
    for kind, write in DICOM.items():
        write(mask if content == "liver" else mask & False, affine, files, tmp_path / kind, SOFTWARE)
        said = subprocess.run(["dciodvfy", tmp_path / kind], capture_output=True, text=True).stderr
        assert "Error" not in said, said


@pytest.mark.parametrize("kind", DICOM)
def test_dcmqis_segmentation_of_a_real_series_is_given_back(kind, data_dir, tmp_path):
    files = sorted((data_dir / "dcmqi_ct3" / "dicom").iterdir())
    image = LoadImage(image_only=True)(data_dir / "dcmqi_ct3" / "dicom")
    affine = image.affine.numpy()
    theirs = read_volume(read_seg(data_dir / "dcmqi_ct3" / "liver_seg.dcm"), affine, image.shape)
    assert theirs.sum() > 100_000
    DICOM[kind](theirs, affine, files, tmp_path / kind, SOFTWARE)
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
        write(thin, thinned, files, tmp_path / kind, SOFTWARE)
    assert dice(read_volume(read_seg(tmp_path / "SEG"), thinned, thin.shape), thin) >= 0.999
    contours = read_rtstruct(tmp_path / "RTSTRUCT", files, np.logical_or)
    assert dice(read_volume(contours, thinned, thin.shape), thin) >= 0.98
