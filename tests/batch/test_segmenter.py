"""`ravnet_bundle.Segmenter`: an image in, objects out, nothing written."""

import json
import os
from concurrent.futures import ThreadPoolExecutor

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from ravnet_bundle import Segmenter, segment
from ravnet_bundle.scripts.phantom import make_phantom, save_phantom
from ravnet_bundle.scripts.reading import CTError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A phantom with axes towards L, P, S, and what `segment` makes of it."""
    folder = tmp_path_factory.mktemp("one")
    phantom = make_phantom(seed=1, shape=(52, 48, 18), spacing=(7, 7, 12), axcodes="LPS")
    save_phantom(phantom, folder / "ct.nii.gz")
    (outcome,) = segment(folder / "ct.nii.gz", folder / "out", fast=True, height=170, weight=70)
    assert outcome.status == "done", outcome.error
    (folder / "out" / outcome.name).rename(folder / "out" / "one")
    return folder


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter(fast=True)


@pytest.fixture(scope="module")
def expected(folder) -> np.ndarray:
    return np.asarray(nib.load(folder / "out" / "one" / "liver.nii.gz").dataobj)


def as_simpleitk(path):
    return pytest.importorskip("SimpleITK", reason="not required").ReadImage(str(path))


def array_of(image) -> np.ndarray:
    if isinstance(image, (np.ndarray, torch.Tensor)):
        return np.asarray(image).reshape(np.shape(image)[-3:])
    return np.asarray(image.dataobj) if hasattr(image, "dataobj") else as_itk_array(image)


def as_itk_array(image) -> np.ndarray:
    return pytest.importorskip("SimpleITK").GetArrayFromImage(image).T


KINDS = {
    "path": str,
    "nibabel": nib.load,
    "SimpleITK": as_simpleitk,
    "MetaTensor": lambda path: MetaTensor(nib.load(path).get_fdata()[None], affine=nib.load(path).affine),
    "array": lambda path: (np.asarray(nib.load(path).dataobj), nib.load(path).affine),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_image_has_the_mask_that_segment_writes_as_an_image_of_its_kind(kind, folder, segmenter, expected):
    image, before = KINDS[kind](folder / "ct.nii.gz"), sorted(os.walk(folder))
    liver = segmenter(image, height=170, weight=70)
    assert expected.any()
    for found in (liver.mask, liver.probability):
        assert type(found) is (nib.Nifti1Image if kind == "path" else np.ndarray if kind == "array" else type(image))
        if kind == "SimpleITK":
            assert (found.GetOrigin(), found.GetDirection()) == (image.GetOrigin(), image.GetDirection())
        elif kind != "array":
            np.testing.assert_allclose(found.affine, nib.load(folder / "ct.nii.gz").affine, atol=1e-5)
    assert array_of(liver.mask).dtype == np.uint8 and array_of(liver.probability).dtype == np.float32
    np.testing.assert_array_equal(array_of(liver.mask), expected)
    np.testing.assert_array_equal(array_of(liver.probability) >= 0.5, expected > 0)
    assert sorted(os.walk(folder)) == before


def test_measures_and_verdict_are_those_of_the_table(folder, segmenter):
    written = json.loads((folder / "out" / "one" / "measures.json").read_text())
    liver = segmenter(nib.load(folder / "ct.nii.gz"), height=170, weight=70)
    assert {name: written[name] for name in liver.measures} == liver.measures
    assert (liver.verdict, list(liver.reasons)) == (written["verdict"], written["reasons"])


def test_threads_share_one_and_get_the_same(folder, segmenter, expected):
    with ThreadPoolExecutor(2) as pool:
        for liver in pool.map(segmenter, [folder / "ct.nii.gz"] * 2):
            np.testing.assert_array_equal(array_of(liver.mask), expected)


@pytest.mark.parametrize(
    ("image", "error", "says"),
    [
        ((np.zeros((8, 8, 8), np.int16), np.diag([5, 5, 5, 1])), CTError, "^image: values 0 to 0 are not HU"),
        ((np.zeros((8, 8), np.int16), np.eye(4)), CTError, "^image: shape .8, 8. is not a volume"),
        ((np.zeros((8, 8, 8), complex), np.eye(4)), CTError, "^image: complex128 voxels are not HU"),
        ((np.zeros((8, 8, 8)), np.eye(3)), CTError, "^image: an affine of shape .3, 3.: give 4 x 4"),
        (np.zeros((8, 8, 8)), TypeError, "ndarray is not a CT: give a path, a nibabel or SimpleITK image"),
        ("nowhere.nii.gz", CTError, "nowhere.nii.gz: no such file"),
    ],
)
def test_what_is_no_ct_is_refused_in_one_line(image, error, says, segmenter):
    with pytest.raises(error, match=says):
        segmenter(image)


def test_an_affine_that_states_nothing_is_doubted(segmenter):
    phantom = make_phantom(seed=1, shape=(52, 48, 18), spacing=(7, 7, 12))
    liver = segmenter((phantom.image, np.eye(4)))
    assert liver.verdict != "ok" and any("affine is an identity" in reason for reason in liver.reasons)
