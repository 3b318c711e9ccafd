"""The liver's surface as a mesh, read back by trimesh."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ravnet_bundle import segment
from ravnet_bundle.scripts.batch.options import MESH_FORMATS
from ravnet_bundle.scripts.phantom import make_phantom, save_phantom
from ravnet_bundle.scripts.writing import write_mesh

trimesh = pytest.importorskip("trimesh")


def milliliters(mask, affine) -> float:
    return np.count_nonzero(mask) * abs(np.linalg.det(affine)) / 1000


@pytest.mark.parametrize(("ending", "codes"), zip(MESH_FORMATS, ("LPS", "RAS", "SAR")))
def test_a_mesh_is_closed_has_the_masks_volume_and_lies_where_it_lies(ending, codes, tmp_path):
    phantom = make_phantom(seed=1, shape=(96, 96, 24), spacing=(3.5, 3.5, 9), axcodes=codes)
    path = tmp_path / f"liver.{ending}"
    write_mesh(phantom.label, phantom.affine, path)
    mesh = trimesh.load_mesh(path)
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.volume / 1000 == pytest.approx(milliliters(phantom.label, phantom.affine), rel=0.01)  # outward: > 0
    centre = nib.affines.apply_affine(phantom.affine, np.argwhere(phantom.label)).mean(axis=0)
    np.testing.assert_allclose(mesh.center_mass, centre * (-1, -1, 1), atol=0.5)  # LPS
    assert b"SPACE=LPS" in path.read_bytes()[:200]
    before = path.read_bytes()
    write_mesh(phantom.label, phantom.affine, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_mesh_of_few_voxels_is_closed(size, tmp_path):
    mask = np.zeros((12, 12, 12), np.uint8)
    mask[3 : 3 + size, 3 : 3 + size, 3 : 3 + size] = 1
    write_mesh(mask, np.eye(4), tmp_path / "x.ply")
    mesh = trimesh.load_mesh(tmp_path / "x.ply")
    assert mesh.is_watertight and mesh.volume == pytest.approx(size**3, rel=0.05)


def test_segment_writes_the_mesh_that_is_asked_for(tmp_path):
    save_phantom(make_phantom(seed=1, shape=(52, 48, 18), spacing=(7, 7, 12)), tmp_path / "ct.nii.gz")
    (outcome,) = segment(tmp_path / "ct.nii.gz", tmp_path / "out", fast=True, mesh="stl")
    folder = tmp_path / "out" / outcome.name
    assert "liver.stl" in (folder / "manifest.json").read_text()
    assert trimesh.load_mesh(folder / "liver.stl").volume / 1000 == pytest.approx(outcome.volume_ml, rel=0.01)
    with pytest.raises(ValueError, match="mesh glb: give stl, ply, obj"):
        segment(tmp_path / "ct.nii.gz", tmp_path / "out", mesh="glb")


def test_of_no_liver_an_empty_mesh_is_written(tmp_path):
    for ending in MESH_FORMATS:
        path = Path(tmp_path, f"none.{ending}")
        write_mesh(np.zeros((8, 8, 8), np.uint8), np.eye(4), path)
        assert path.stat().st_size > 0
