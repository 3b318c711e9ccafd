"""Data sets as people list them, masks beside the CTs, and what a listing that cannot be meant is told."""

import json
import logging
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from commands import BUNDLE
from monai.bundle import run

from scripts.files import DataError
from scripts.reading import CTError, find
from scripts.reading.checks import check_claim
from scripts.training.datasets import training_scans


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def entries(*numbers: int) -> list[dict[str, str]]:
    return [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in numbers]


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_nnunets_first_version_leaves_the_channel_out_of_its_listing(ending, tmp_path):
    names = [f"liver_{n}" for n in (50, 60, 70)]
    touch(
        tmp_path, *(f"imagesTr/{name}_0000{ending}" for name in names), *(f"labelsTr/{name}{ending}" for name in names)
    )
    listed = [{"image": f"./imagesTr/{name}{ending}", "label": f"./labelsTr/{name}{ending}"} for name in names]
    (tmp_path / "dataset.json").write_text(json.dumps({"training": listed, "test": ["./imagesTs/liver_1.nii.gz"]}))
    split = training_scans(tmp_path)
    images = {item["image"] for part in split.values() for item in part}
    assert images == {str(tmp_path / "imagesTr" / f"{name}_0000{ending}") for name in names}
    assert {item["patient"] for part in split.values() for item in part} == {"lits_050", "lits_060", "lits_070"}


@pytest.mark.parametrize("patient", ["named", "the same file", "LiTS"])
def test_a_patient_in_two_parts_is_refused(patient, tmp_path):
    content = {"training": entries(1, 2), "validation": entries(3), "test": entries(4)}
    if patient == "named":
        for part in ("training", "test"):
            content[part][0]["patient"] = "P7"
    elif patient == "the same file":
        content["test"] = entries(1)
    else:
        for part, n in (("training", 8), ("test", 10)):
            content[part] = [{"image": f"imagesTr/liver_{n}.nii.gz", "label": f"labelsTr/liver_{n}.nii.gz"}]
    touch(tmp_path, *(entry[key] for part in content.values() for entry in part for key in ("image", "label")))
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    who = {"named": "P7", "the same file": "1", "LiTS": "lits_007"}[patient]
    with pytest.raises(DataError, match=f'patient {who} is listed in "training" and in "test"'):
        training_scans(tmp_path)


def test_a_listing_with_a_byte_order_mark_is_read(tmp_path):
    touch(tmp_path, *(entry[key] for entry in entries(1, 2, 3) for key in ("image", "label")))
    (tmp_path / "dataset.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"training": entries(1, 2, 3)}).encode())
    assert [len(part) for part in training_scans(tmp_path).values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("[" * 10**5, "cannot be read as JSON"),
        ("[1]", "a list, expected"),
        ('"training"', "a str, expected"),
        ('{"training": {"1": 2}}', '"training" is no list'),
        ('{"training": "all"}', '"training" is no list'),
        ('{"training": [{"label": "l"}]}', 'entry 0 of "training" has no "image"'),
        ('{"training": [{"image": "i"}]}', 'entry 0 of "training" has no "image" and "label"'),
        ('{"training": [["i", "l"]]}', 'entry 0 of "training"'),
        ('{"training": [], "test": [{"image": 1, "label": 2}]}', 'entry 0 of "test"'),
    ],
)
def test_a_listing_that_cannot_be_meant_is_one_line(content, says, tmp_path):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(DataError) as refused:
        training_scans(tmp_path)
    assert says in str(refused.value) and str(refused.value).startswith(f"{tmp_path / 'dataset.json'}: ")
    assert str(refused.value).isprintable()


def test_masks_beside_cts_are_set_aside_and_counted_by_folder(tmp_path):
    """TotalSegmentator, the Decathlon, LiTS and KiTS; and a CT that only sounds like a mask is none."""
    masks = ("s1/segmentations/liver.nii.gz", "s1/segmentations/spleen.nii.gz", "msd/labelsTr/a.nii.gz")
    masks += ("lits/segmentation-3.nii", "kits/segmentation.nii.gz")
    cts = ("s1/ct.nii.gz", "msd/imagesTr/a.nii.gz", "lits/volume-3.nii", "kits/imaging.nii.gz")
    cts += ("segmentations/x.nii.gz", "labelsTr/y.nii.gz", "z/segmentation.nii.gz")
    touch(tmp_path, *masks, *cts)
    found = find([tmp_path])
    assert {str(scan.source.relative_to(tmp_path)) for scan in found.scans} == set(cts)
    assert found.refused == () and f"{tmp_path / 's1' / 'segmentations'}: 2 masks set aside" in found.aside
    assert len(found.aside) == 4
    assert len(find([tmp_path / masks[0]]).scans) == 1  # what is named itself is tried


def test_training_without_data_ends_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    folders = {"bundle_root": str(BUNDLE), "dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out")}
    with pytest.raises(RuntimeError) as raised:
        run(run_id="training", config_file=str(BUNDLE / "configs" / "train.json"), **folders)
    capsys.readouterr()
    sys.excepthook(raised.type, raised.value, raised.tb)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: no labelled scans in {tmp_path}: expected dataset.json")


@pytest.mark.parametrize("names", [["evaluate"], ["evaluate", "train"]], ids="+".join)
def test_evaluate_json_without_train_json_before_it_says_so(names):
    configs = [str(BUNDLE / "configs" / f"{name}.json") for name in names]
    with pytest.raises(KeyError, match="give train.json first"):
        run(config_file=configs, bundle_root=str(BUNDLE))


@pytest.mark.parametrize("name", ["train", "inference"])
def test_a_run_from_elsewhere_says_what_to_add(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if not Path(place, "scripts").is_dir()])
    with pytest.raises(SystemExit, match=f"error: no bundle in {tmp_path}: add --bundle_root BUNDLE"):
        run(config_file=str(BUNDLE / "configs" / f"{name}.json"))


def test_what_is_logged_of_an_error_that_is_told_is_left_out(tmp_path, monkeypatch):
    """MONAI's StatsHandler logs it with its traceback, and Ignite again."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    (tmp_path / "ct.nii.gz").write_bytes(b"no CT")
    seen: list[logging.LogRecord] = []
    watch = type("Watch", (logging.Handler,), {"emit": lambda self, record: seen.append(record)})()
    monkeypatch.setattr(logging.getLogger("monai.handlers.StatsHandler"), "handlers", [watch])
    folders = {"bundle_root": str(BUNDLE), "dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "out")}
    with pytest.raises(RuntimeError):
        run(config_file=str(BUNDLE / "configs" / "inference.json"), **folders)
    assert [record.getMessage() for record in seen if record.exc_info] == []


@pytest.mark.parametrize(("times", "refused"), [(190, False), (210, True)])
def test_a_packed_ct_is_no_emptier_than_cts_are(times, refused, tmp_path):
    """Of CTs of more than 64 MB; air packs by 1000."""
    claimed = 2**27
    with pytest.raises(CTError, match="no CT compresses that much") if refused else nullcontext():
        check_claim(claimed, claimed // times, True, tmp_path)
