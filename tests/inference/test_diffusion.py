"""A liver corrected along tissue: random walks against their equation, and what they change."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from scripts.inference.diffusion import TissueDiffusiond, random_walk
from scripts.inference.pipeline import Pipeline
from scripts.reading import load

MM = (1.75, 1.75, 3.5)


def test_the_walk_solves_its_equation():
    rng = np.random.default_rng(0)
    image, prior = (rng.random((5, 4, 3)).astype(np.float32) for _ in range(2))
    spacing, length, edge = np.array([1.0, 2.0, 3.0]), 4.0, 0.3
    x = random_walk(image, prior, spacing, length, edge)
    matrix = np.eye(image.size) / length**2
    places = list(np.ndindex(image.shape))
    for a, p in enumerate(places):
        for b, q in enumerate(places):
            step = np.abs(np.subtract(p, q))
            if step.sum() == 1:
                weight = np.exp(-(((image[p] - image[q]) / edge) ** 2)) / spacing[step.argmax()] ** 2
                matrix[a, a] += weight
                matrix[a, b] -= weight
    assert x.ravel() == pytest.approx(np.linalg.solve(matrix, prior.ravel() / length**2), abs=2e-3)
    assert x.shape == image.shape and prior.min() - 1e-3 <= x.min() and x.max() <= prior.max() + 1e-3


def scene() -> dict[str, torch.Tensor]:
    """A liver whose left end was missed, on a darker mass of which a part was found, and all else as it is."""
    image, found, truth = (torch.zeros(1, 80, 60, 30) for _ in range(3))
    image[0, 6:74, 10:50, 15:27] = 0.7
    truth[0, 6:74, 10:50, 15:27] = 0.9
    found[0, 16:74, 10:50, 15:27] = 0.9
    image[0, 30:60, 15:45, 1:15] = 0.4
    found[0, 30:60, 15:45, 11:15] = 0.9
    affine = torch.diag(torch.tensor([*MM, 1.0]))
    return {"pred": found, "truth": truth, "image": MetaTensor(image, affine=affine)}


def test_a_part_follows_the_tissue_it_belongs_to():
    data = scene()
    before = data["pred"].clone()
    after = TissueDiffusiond("pred")(data)["pred"]
    assert torch.equal(data["pred"], before)
    wrong = [((x >= 0.5) ^ (data["truth"] >= 0.5)).count_nonzero() for x in (before, after)]
    assert wrong[1] < 0.1 * wrong[0]  # edges and corners of a part hold no ball
    assert after[0, 8:16, 14:46, 17:25].eq(1).all() and not after[0, 34:56, 19:41, 1:13].any()
    assert after[0, 16:74, 10:50, 15:27].eq(before[0, 16:74, 10:50, 15:27]).all()


def test_where_the_image_shows_no_edges_or_nothing_but_edges_all_stays():
    data = scene()
    data["pred"] = torch.zeros(1, 80, 60, 30)
    data["pred"][0, 20:60, 10:50, 5:25] = 0.9
    noise = torch.rand(1, 80, 60, 30, generator=torch.Generator().manual_seed(0))
    for image, most in ((torch.full((1, 80, 60, 30), 0.5), 0.0), (noise, 0.01)):
        data["image"] = MetaTensor(image, affine=data["image"].affine)
        changed = TissueDiffusiond("pred")(data)["pred"].ne(data["pred"])
        assert changed.count_nonzero() <= most * data["pred"].count_nonzero()


def test_a_thin_difference_and_an_empty_mask_stay():
    data = scene()
    data["pred"] = data["truth"].clone()
    data["pred"][0, 6:8] = 0.0  # 3.5 mm of the liver's end
    assert torch.equal(TissueDiffusiond("pred")(data)["pred"], data["pred"])
    assert torch.equal(TissueDiffusiond("pred", radius_mm=1.0)(data)["pred"] >= 0.5, data["truth"] >= 0.5)
    data["pred"] = torch.zeros(1, 80, 60, 30)
    assert not TissueDiffusiond("pred")(data)["pred"].any()


def test_no_length_changes_nothing():
    data = scene()
    assert TissueDiffusiond("pred", length_mm=0)(data)["pred"] is data["pred"]


def test_a_real_liver_gains_by_it(data_dir):
    folder = data_dir / "lits"
    ct, liver = load(folder / "imagesTr" / "lits_041.nii.gz"), nib.load(folder / "labelsTr" / "lits_041.nii.gz")
    truth = np.asarray(liver.dataobj) > 0
    dice = []
    for length in (0, 60):
        mask = Pipeline(diffusion_mm=length)(ct).mask > 0
        dice.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    assert dice[1] > dice[0] + 0.004 and dice[1] > 0.94  # .944 and .953
