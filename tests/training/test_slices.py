"""The slices of a data set: made once by the config's own transforms, kept, and drawn."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader
from monai.transforms import CastToTyped, Compose

from scripts.phantom import make_decathlon
from scripts.training import slices as slices_module
from scripts.training.slices import LEVELS, Scans, Slices

BUNDLE = Path(__file__).resolve().parents[2] / "ravnet_bundle"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_decathlon(folder, training=3, validation=1, shape=(48, 40, 12), spacing=(8, 8, 20))
    return folder


@pytest.fixture
def dataset(data, tmp_path):
    """Makes `train#dataset`, or another key, of the shipped config."""

    def make(key: str = "train#dataset", **settings):
        parser = ConfigParser()
        parser.read_config(str(BUNDLE / "configs" / "train.json"))
        folders = {"bundle_root": str(BUNDLE), "dataset_dir": str(data), "output_dir": str(tmp_path)}
        parser.update({**folders, "pixel_size": 8, "patch_size": [32, 64], "phantom_share": 0, **settings})
        return parser.get_parsed_content(key)

    return make


def files(folder: Path) -> set[str]:
    return {path.name for path in (folder / "cache").iterdir()}


def test_slices_are_made_once_and_anew_for_other_scans_or_another_grid(dataset, data, tmp_path, monkeypatch):
    dataset()
    (first,) = files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Compose, "__call__", lambda *_: pytest.fail("made again"))
        dataset(slices_per_epoch=5, liver_share=1.0, patch_size=[16, 16])
    dataset(pixel_size=10)
    assert len(files(tmp_path)) == 2
    label = next((data / "labelsTr").iterdir())
    os.utime(label, ns=(1, 1))
    dataset()
    assert len(files(tmp_path)) == 3 and first in files(tmp_path)


def test_scans_are_what_the_transforms_make_within_a_hounsfield_unit(dataset):
    scans, transform = dataset("validate#dataset"), dataset("validate#preprocessing")
    (item,) = scans
    made = transform(dict(scans.data[0]))
    assert item["image"].shape == made["image"].shape
    torch.testing.assert_close(item["image"], made["image"].as_tensor().float(), rtol=0, atol=0.51 / LEVELS)
    assert torch.equal(item["label"], made["label"].as_tensor().to(torch.uint8)) and item["label"].any()


def test_a_batch_has_its_size_and_every_scan_and_its_share_of_liver(dataset):
    slices = dataset(slices_per_epoch=600, liver_share=0.6)
    slices.set_random_state(0)
    batches = list(DataLoader(slices, batch_size=200))
    assert [batch["image"].shape for batch in batches] == [(200, 3, 48, 96)] * 3  # one and a half patches
    image, label = (torch.cat([batch[key] for batch in batches]) for key in ("image", "label"))
    assert image.dtype == label.dtype == torch.uint8 and image.max() <= LEVELS
    depths = [len(scan) for scan, _ in slices.scans]
    share = np.mean([0.6 + 0.4 * len(liver) / depth for liver, depth in zip(slices.liver, depths)])
    assert label[:, 1].flatten(1).any(1).float().mean() == pytest.approx(share, abs=0.06)
    assert slices.scans[0][0].shape[1:] == (48, 40)
    assert not image[..., :28].any() and not image[..., 68:].any() and image[..., 28:68].any()  # in the middle
    seen = {bytes(plane.numpy()) for plane in image[:, 1, :, 28:68]}
    for volume, _ in slices.scans:
        assert len({bytes(plane.numpy()) for plane in volume} & seen) > 6


def test_the_channels_are_the_slices_that_the_config_names(dataset):
    slices = dataset(slices_per_epoch=40)
    assert slices.seen.tolist() == [-2, 0, 2]
    volumes = [volume for volume, _ in slices.scans]
    ends = 0
    for i in range(40):
        planes = slices[i]["image"][..., 28:68]
        (z, volume), *_ = [
            (z, volume) for volume in volumes for z in range(len(volume)) if torch.equal(volume[z], planes[1])
        ]
        ends += z < 2
        beside = volume[[max(0, z - 2), min(len(volume) - 1, z + 2)]]
        assert torch.equal(planes[::2], beside)
    assert ends


def test_a_share_of_one_gives_liver_alone_and_where_there_is_none_any_slice(dataset):
    slices = dataset(slices_per_epoch=60, liver_share=1.0)
    assert all(slices[i]["label"][1].any() for i in range(60))
    slices.liver = [liver[:0] for liver in slices.liver]
    assert any(not slices[i]["label"][1].any() for i in range(60))


def test_a_share_of_the_slices_is_of_phantoms_without_a_liver(dataset, tmp_path, monkeypatch):
    small = {"seed": 101, "region": "pelvis", "shape": (40, 40, 6), "spacing": (10, 10, 20)}
    monkeypatch.setattr(slices_module, "WITHOUT_LIVER", (small,))
    slices = dataset(slices_per_epoch=400, liver_share=1.0, phantom_share=0.25)
    empty = [not slices[i]["label"].any() for i in range(400)]
    assert np.mean(empty) == pytest.approx(0.25, abs=0.07)
    assert all(slices[i]["image"].any() for i in range(40))
    assert len(files(tmp_path)) == 2
    dataset(phantom_share=0.1)
    assert len(files(tmp_path)) == 2  # made once


def test_the_same_seed_draws_the_same_slices(dataset):
    slices = dataset()

    def draw(seed: int) -> list[torch.Tensor]:
        slices.set_random_state(seed)
        return [slices[i]["image"] for i in range(10)]

    assert all(torch.equal(a, b) for a, b in zip(draw(7), draw(7)))
    assert not all(torch.equal(a, b) for a, b in zip(draw(7), draw(8)))


def test_a_file_by_name_needs_no_scans_and_a_scan_that_fails_leaves_no_file(dataset, tmp_path):
    known = dataset("validate#dataset")
    (path,) = (tmp_path / "cache").iterdir()
    assert torch.equal(Scans([], Compose(), str(path))[0]["image"], known[0]["image"])

    with pytest.raises(RuntimeError, match="applying transform"):
        Slices(known.data, Compose([CastToTyped("absent")]), str(tmp_path / "other"), 1, 0.5)
    assert list((tmp_path / "other").iterdir()) == []
