"""All 48 ways to store a volume along the patient's axes give one and the same volume in the world."""

import nibabel as nib
import numpy as np
import pytest
from hostile.case import AFFINE, CODES, ct
from series_files import write_series

from scripts.reading import load


def stored_along(codes: str, affine: np.ndarray = AFFINE) -> nib.Nifti1Image:
    """The small CT with its axes reordered and flipped."""
    image = nib.Nifti1Image(ct(), affine)
    now, then = (nib.orientations.axcodes2ornt(c) for c in (nib.aff2axcodes(affine), codes))
    return image.as_reoriented(nib.orientations.ornt_transform(now, then))


def assert_one_world(volume, expected: nib.Nifti1Image):
    found = nib.as_closest_canonical(nib.Nifti1Image(volume.numpy(), volume.affine.numpy()))
    expected = nib.as_closest_canonical(expected)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)
    np.testing.assert_array_equal(found.get_fdata(), expected.get_fdata())


@pytest.mark.parametrize("codes", CODES)
def test_a_nifti_of_any_axes_is_one_volume_in_the_world(codes, tmp_path):
    image = stored_along(codes)
    assert nib.aff2axcodes(image.affine) == tuple(codes)
    nib.save(image, tmp_path / "ct.nii.gz")
    volume = load(tmp_path / "ct.nii.gz")
    assert nib.aff2axcodes(volume.affine) == tuple(codes)  # on its own grid
    assert_one_world(volume, stored_along("RAS"))


@pytest.mark.parametrize("codes", CODES)
def test_a_dicom_series_of_any_axes_is_one_volume_in_the_world(codes, tmp_path):
    """Rows, columns and the way that the slices follow one another, along any of the patient's axes.

    A series has no order but that in space: it is read along its slices' normal, so that 24 codes remain.
    """
    image = stored_along(codes)
    write_series(np.asarray(image.dataobj), image.affine, tmp_path / "dicom")
    volume = load(tmp_path / "dicom")
    assert nib.aff2axcodes(volume.affine)[:2] == tuple(codes)[:2]
    assert np.linalg.det(volume.affine[:3, :3]) > 0
    assert_one_world(volume, stored_along("RAS"))


def turned(x: float, y: float, z: float) -> np.ndarray:
    """The affine, turned about the patient's axes by degrees."""
    affine = AFFINE.copy()
    for axis, degrees in enumerate((x, y, z)):
        angle, others = np.radians(degrees), [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[np.ix_(others, others)] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        affine[:3] = turn @ affine[:3]
    return affine


@pytest.mark.parametrize("codes", ["LPS", "RSA", "IAL"])
def test_an_oblique_series_is_where_its_nifti_is(codes, tmp_path):
    image = stored_along(codes, turned(20, -15, 10))
    nib.save(image, tmp_path / "ct.nii.gz")
    write_series(np.asarray(image.dataobj), image.affine, tmp_path / "dicom")
    for name in ("ct.nii.gz", "dicom"):
        assert_one_world(load(tmp_path / name), image)
