"""Scans in the layouts that people have: found, split by patient, their known faults repaired or refused."""

import json
import logging
from pathlib import Path

import pytest
import torch
from monai.data import MetaTensor

from scripts.files import DataError
from scripts.phantom import make_phantom
from scripts.training.datasets import lits_patient, training_scans
from scripts.training.headers import IRCADB, RepairHeaderd

PARTS = ("training", "validation", "test")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def decathlon(folder: Path, **parts: list) -> None:
    """A dataset.json; numbers stand for labelled scans, which are made, and strings for themselves."""
    content = {"name": "x", "numTraining": len(parts["training"])}
    for part, names in parts.items():
        content[part] = [
            {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} if isinstance(n, int) else n
            for n in names
        ]
        touch(folder, *(entry[key] for entry in content[part] if isinstance(entry, dict) for key in ("image", "label")))
    (folder / "dataset.json").write_text(json.dumps(content))


def images_and_labels(folder: Path, names: list[str], suffix: str = "", ending: str = ".nii.gz") -> None:
    touch(folder, *(f"imagesTr/{n}{suffix}{ending}" for n in names), *(f"labelsTr/{n}{ending}" for n in names))


def sizes(split: dict) -> tuple[int, ...]:
    assert set(split) == set(PARTS)
    return tuple(len(split[part]) for part in PARTS)


def patients(split: dict, part: str) -> set[str]:
    return {item["patient"] for item in split[part]}


def assert_disjoint(split: dict) -> None:
    everyone = [patients(split, part) for part in PARTS]
    assert sum(map(len, everyone)) == len(set.union(*everyone))
    files = [item[key] for part in PARTS for item in split[part] for key in ("image", "label")]
    assert len(files) == len(set(files))


def test_a_decathlons_own_split_is_kept(tmp_path):
    decathlon(tmp_path, training=[3, 1, 2], validation=[4], test=[5, 6])
    split = training_scans(tmp_path)
    assert sizes(split) == (3, 1, 2)
    image = tmp_path / "imagesTr/3.nii.gz"
    assert split["training"][0] == {"image": str(image), "label": str(tmp_path / "labelsTr/3.nii.gz"), "patient": "3"}


def test_a_decathlon_without_labelled_validation_and_test_is_split_80_20_20(tmp_path):
    decathlon(tmp_path, training=list(range(50)), test=["./imagesTs/77.nii.gz"])
    split = training_scans(tmp_path)
    assert sizes(split) == (32, 8, 10)
    assert_disjoint(split)


def test_only_the_part_that_a_decathlon_lacks_is_drawn(tmp_path):
    decathlon(tmp_path, training=list(range(10)), test=[90, 91])
    split = training_scans(tmp_path)
    assert sizes(split) == (8, 2, 2)
    assert patients(split, "test") == {"90", "91"}
    assert_disjoint(split)


def test_a_decathlons_patients_stay_on_one_side(tmp_path):
    names = range(40)
    content = {"training": [{"image": f"i{n}.nii", "label": f"l{n}.nii", "patient": n // 4} for n in names]}
    touch(tmp_path, *(f"{kind}{n}.nii" for n in names for kind in "il"))
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    split = training_scans(tmp_path)
    assert sizes(split) == (24, 8, 8)  # of ten patients six, two and two
    assert_disjoint(split)


def test_folds_test_each_patient_once(tmp_path):
    touch(tmp_path, *(f"{kind}-{n}.nii" for n in range(20) for kind in ("volume", "segmentation")))
    splits = [training_scans(tmp_path, fold=fold) for fold in range(5)]
    for split in splits:
        assert_disjoint(split)
        assert patients(split, "validation")
    tested = [item["image"] for split in splits for item in split["test"]]
    assert len(tested) == len(set(tested)) == 20
    assert training_scans(tmp_path, fold=1) == splits[1] != training_scans(tmp_path, seed=1, fold=1)


def test_folds_split_anew_what_a_listing_has_split(tmp_path):
    decathlon(tmp_path, training=[3, 1, 2], validation=[4], test=[5, 6])
    tested = [patients(training_scans(tmp_path, fold=fold, folds=3), "test") for fold in range(3)]
    assert sorted(map(len, tested)) == [2, 2, 2] and set.union(*tested) == set("123456")


@pytest.mark.parametrize("fold, folds", [(5, 5), (-1, 5), (0, 1), (0, 7)])
def test_a_fold_that_there_is_not_is_refused(fold, folds, tmp_path):
    decathlon(tmp_path, training=list(range(6)))
    with pytest.raises(DataError, match=f"no fold {fold} of {folds}"):
        training_scans(tmp_path, fold=fold, folds=folds)


def test_lits_is_found_in_nested_folders_packed_or_not(tmp_path):
    touch(tmp_path, "Training Batch 1/volume-0.nii", "Training Batch 1/segmentation-0.nii")
    touch(tmp_path, "Training Batch 2/volume-28.nii.gz", "masks/segmentation-28.nii.gz")
    touch(tmp_path, "volume-90.nii", "segmentation-90.nii")
    touch(tmp_path, "test/volume-5.nii", "segmentation-6.nii", "volume-.nii", "my-volume-3.nii", "segmentation-3.nii")
    split = training_scans(tmp_path, test_share=0, validation_share=0)
    items = sorted((item for part in split.values() for item in part), key=lambda item: item["patient"])
    assert [(Path(item["image"]).name, Path(item["label"]).name) for item in items] == [
        ("volume-0.nii", "segmentation-0.nii"),
        ("volume-28.nii.gz", "segmentation-28.nii.gz"),
        ("volume-90.nii", "segmentation-90.nii"),
    ]


def test_lits_scans_of_one_patient_stay_on_one_side_whatever_the_seed(tmp_path):
    numbers = (0, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
    assert len({lits_patient(n) for n in numbers}) == 6
    touch(tmp_path, *(f"{kind}-{n}.nii" for n in numbers for kind in ("volume", "segmentation")))
    splits = [training_scans(tmp_path, seed) for seed in range(12)]
    for split in splits:
        assert_disjoint(split)
        assert sum(sizes(split)) == len(numbers)
    assert any("lits_007" in patients(split, "test") for split in splits)  # and four scans go with it


@pytest.mark.parametrize("name", ["volume-{}", "liver_{}"])
def test_lits_patients_are_known_by_their_names_in_other_layouts_too(name, tmp_path):
    images_and_labels(tmp_path, [name.format(n) for n in (7, 8, 9, 10, 16, 20)], suffix="_0000")
    split = training_scans(tmp_path)
    assert_disjoint(split)
    assert set.union(*(patients(split, part) for part in PARTS)) == {"lits_007", "lits_016", "lits_020"}


@pytest.mark.parametrize("suffix", ["", "_0000"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_images_and_labels_are_paired_by_name(suffix, ending, tmp_path):
    images_and_labels(tmp_path, [f"case_{n:03d}" for n in range(10)], suffix, ending)
    touch(tmp_path, "imagesTr/unlabelled.nii.gz", "imagesTr/notes.txt", "labelsTr/lonely.nii.gz")
    split = training_scans(tmp_path)
    assert sizes(split) == (6, 2, 2)
    assert_disjoint(split)
    for item in split["training"]:
        assert Path(item["image"]).name == Path(item["label"]).name.replace(ending, suffix + ending)


def test_a_decathlons_and_an_nnunets_listing_are_told_apart(tmp_path):
    images_and_labels(tmp_path, ["a", "b", "c"], "_0000")
    (tmp_path / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, "numTraining": 3}))
    assert sizes(training_scans(tmp_path)) == (1, 1, 1)


def test_the_hidden_files_of_macos_are_no_scans(tmp_path):
    images_and_labels(tmp_path, ["a", "b", "c", "._a", "._b", "._c"])
    assert sizes(training_scans(tmp_path)) == (1, 1, 1)


def test_a_split_depends_on_its_seed_alone(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        images_and_labels(folder, [str(n) for n in range(20)])
    tests = [patients(training_scans(here, seed), "test") for seed in (0, 0, 1, 2)]
    assert tests[0] == tests[1] == patients(training_scans(there, 0), "test")
    assert len({frozenset(test) for test in tests}) == 3


def test_fewer_than_three_patients_are_refused(tmp_path):
    for name in ("one", "two"):
        images_and_labels(tmp_path, [name])
        with pytest.raises(DataError, match="too few patients to train with: at least three"):
            training_scans(tmp_path)
    images_and_labels(tmp_path, ["three"])
    assert sizes(training_scans(tmp_path)) == (1, 1, 1)


@pytest.mark.parametrize("content", ["nothing", "an empty list", "images alone"])
def test_a_folder_without_labelled_scans_is_refused_with_the_layouts_named(content, tmp_path):
    if content == "an empty list":
        decathlon(tmp_path, training=["./imagesTr/1.nii.gz"])
    elif content == "images alone":
        touch(tmp_path, "imagesTr/1.nii.gz", "volume-1.nii")
    with pytest.raises(DataError, match=r"no labelled scans in .*: expected dataset.json .*, volume-N.nii"):
        training_scans(tmp_path)


def test_a_folder_that_is_missing_is_refused_with_the_option_named(tmp_path):
    with pytest.raises(DataError, match="no such folder: .*nowhere.*--dataset_dir"):
        training_scans(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["imagesTr", "labelsTr"])
def test_a_listed_file_that_is_missing_is_named(kind, tmp_path):
    decathlon(tmp_path, training=[1, 2, 3], validation=[4])
    (tmp_path / kind / "4.nii.gz").unlink()
    with pytest.raises(DataError, match=f"lists a file that does not exist: .*{kind}/4.nii.gz"):
        training_scans(tmp_path)


def test_the_real_scans_are_split_as_listed_with_no_patient_on_two_sides(data_dir):
    split = training_scans(data_dir / "lits")
    assert sizes(split) == (19, 4, 5)
    assert_disjoint(split)


def scan(array: torch.Tensor, affine, name: str = "volume-99.nii") -> MetaTensor:
    affine = torch.as_tensor(affine, dtype=torch.float64)
    return MetaTensor(array[None], affine=affine, meta={"filename_or_obj": f"somewhere/{name}"})


def repair(image: MetaTensor, label: MetaTensor) -> tuple[MetaTensor, MetaTensor]:
    result = RepairHeaderd(("image", "label"))({"image": image, "label": label, "patient": "p"})
    assert result["patient"] == "p"
    return result["image"], result["label"]


@pytest.fixture(scope="module")
def phantom() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    made = make_phantom(1, (48, 48, 10), (8, 8, 12))  # stored as LPS
    return tuple(torch.as_tensor(part) for part in (made.image, made.label, made.affine))


def test_a_right_header_passes_in_silence(phantom, caplog):
    image, label, affine = phantom
    for part in repair(scan(image, affine), scan(label, affine)):
        assert torch.equal(part.affine, affine)
    assert caplog.records == []


def test_a_labels_own_affine_gives_way_to_the_images(phantom, caplog):
    image, label, affine = phantom
    with caplog.at_level(logging.WARNING):
        fixed = repair(scan(image, affine), scan(label, torch.eye(4)))
    assert all(torch.equal(part.affine, affine) for part in fixed)
    assert "volume-99: the label's affine differs" in caplog.text
    assert len(caplog.records) == 1


def test_lps_data_labelled_ras_are_turned(phantom, caplog):
    image, label, affine = phantom
    wrong = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)) @ affine
    with caplog.at_level(logging.WARNING):
        fixed = repair(scan(image, wrong), scan(label, wrong))
    assert all(torch.allclose(part.affine, affine) for part in fixed)
    assert "volume-99: the liver lies on the left" in caplog.text


def test_a_scan_without_liver_keeps_its_orientation(phantom, caplog):
    image, label, affine = phantom
    wrong = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)) @ affine
    assert torch.equal(repair(scan(image, wrong), scan(torch.zeros_like(label), wrong))[0].affine, wrong)
    assert caplog.records == []


def empty_volume(depth: int) -> torch.Tensor:
    return torch.zeros(1).expand(512, 512, depth)


@pytest.mark.parametrize("name", ["volume-45.nii", "volume-45_0000.nii.gz"])
def test_an_ircadb_volume_with_an_identity_affine_gets_its_spacing_back(name, caplog):
    pixel, spacing, depth = IRCADB[17]  # LiTS 28 is patient 1
    assert depth == 74
    volume = scan(empty_volume(depth), torch.eye(4), name)
    with caplog.at_level(logging.WARNING):
        image, label = repair(volume, volume.clone())
    expected = torch.diag(torch.tensor([-pixel, -pixel, spacing, 1], dtype=torch.float64))
    assert torch.equal(image.affine, expected)
    assert torch.equal(label.affine, expected)
    assert "identity affine; 0.74 x 0.74 x 2.5 mm from 3D-IRCADb's table" in caplog.text


@pytest.mark.parametrize(
    "name, depth", [("volume-45.nii", 73), ("volume-48.nii", 74), ("volume-27.nii", 74), ("scan", 74)]
)
def test_an_identity_affine_of_unknown_spacing_is_refused(name, depth):
    volume = scan(empty_volume(depth), torch.eye(4), name)
    with pytest.raises(DataError, match=f"{name.removesuffix('.nii')}: an identity affine .* Remove the scan"):
        repair(volume, volume.clone())


def test_image_and_label_on_two_grids_are_refused(phantom):
    image, label, affine = phantom
    with pytest.raises(DataError, match=r"volume-99: image \(1, 48, 48, 10\) and label \(1, 48, 48, 9\)"):
        repair(scan(image, affine), scan(label[..., :9], affine))


def test_a_label_stored_along_other_axes_is_refused(phantom):
    image, label, affine = phantom
    turned = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64)) @ affine
    with pytest.raises(DataError, match="volume-99: label along .*: resample the label"):
        repair(scan(image, affine), scan(label, turned))


def test_a_listing_of_test_scans_alone_serves_an_evaluation(tmp_path):
    decathlon(tmp_path, training=[], test=[1, 2])
    found = training_scans(tmp_path)
    assert [len(found[part]) for part in ("training", "validation", "test")] == [0, 0, 2]
