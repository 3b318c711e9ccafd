"""What outputs are called: each scan's its own, the same whatever it is given with, and nobody else's."""

from pathlib import Path

import nibabel as nib
import pytest
from commands import BUNDLE
from monai.bundle import run
from series_files import write_series

from ravnet_bundle.scripts.inference.layout import MaskLayout
from ravnet_bundle.scripts.phantom import make_phantom, save_phantom
from ravnet_bundle.scripts.reading import find


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(seed=1, shape=(24, 24, 8), spacing=(9, 9, 9))


def touch(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [folder / name for name in names]


def names_of(*inputs: Path) -> dict[Path, str]:
    return {scan.source: scan.name for scan in find(inputs).scans}


def test_the_bundles_own_masks_never_collide(phantom, tmp_path):
    """UIDs as folders, one name with two extensions, dots in names: a mask each, and the usual name where it can be."""
    files = ("x.nii", "x.nii.gz", "scan.v1.nii.gz", "sub/x.nii")
    for name in files:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        save_phantom(phantom, tmp_path / "in" / name)
    for uid in ("1.2.840.113619.1", "1.2.840.113619.2"):
        write_series(phantom.image, phantom.affine, tmp_path / "in" / uid)
    run(
        config_file=str(BUNDLE / "configs" / "inference.json"),
        bundle_root=str(BUNDLE),
        dataset_dir=str(tmp_path / "in"),
        output_dir=str(tmp_path / "out"),
        pixel_size=9.0,
    )
    masks = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.nii.gz"))
    stems = ("x.nii", "x.nii.gz", "scan.v1", "sub/x", "1.2.840.113619.1", "1.2.840.113619.2")
    assert masks == sorted(f"{stem}_liver.nii.gz" for stem in stems)
    assert nib.load(tmp_path / "out" / "x.nii_liver.nii.gz").shape == phantom.image.shape


def test_scans_from_elsewhere_are_numbered_where_they_are_called_alike(tmp_path):
    layout = MaskLayout(tmp_path / "out", "liver")
    first, second = (layout.filename(tmp_path / place / "ct.nii.gz") for place in "ab")
    assert (first.name, second.name) == ("ct_liver.nii.gz", "ct_2_liver.nii.gz")
    assert layout.filename(tmp_path / "a" / "ct.nii.gz") == first


def test_a_general_name_takes_its_folders_whatever_it_is_given_with(tmp_path):
    """TotalSegmentator's layout, and KiTS's: alone, in a list, in any order, and by a folder."""
    files = touch(tmp_path, "s0001/ct.nii.gz", "s0002/ct.nii.gz", "case_00000/imaging.nii.gz", "s3/image/ct.nii.gz")
    expected = dict(zip(files, ("s0001_ct", "s0002_ct", "case_00000_imaging", "s3_image_ct"), strict=True))
    assert names_of(*files) == names_of(*reversed(files)) == names_of(tmp_path) == expected
    for file in files:
        assert names_of(file) == names_of(file.parent) == {file: expected[file]}
    (tmp_path / "list.txt").write_text("s0002/ct.nii.gz\ns0001/ct.nii.gz\n")
    assert names_of(tmp_path / "list.txt") == {file: expected[file] for file in files[:2]}


def test_names_that_are_alike_take_of_the_path_what_tells_them_apart(tmp_path):
    files = touch(
        tmp_path, "a/p/x.nii.gz", "b/p/x.nii.gz", "y.nii", "Y.nii.gz", "z z.nii", "z_z.nii", "-o.nii", "..w.nii"
    )
    given = names_of(*files)
    assert [given[file] for file in files[:4]] == ["a_p_x", "b_p_x", "y.nii", "Y.nii.gz"]
    assert len({name.casefold() for name in given.values()}) == len(files)
    assert given == names_of(*reversed(files))
    assert all(name[0] not in ".-" for name in given.values())


def test_a_long_name_is_cut_and_still_its_own(tmp_path):
    files = touch(tmp_path, *("n" * 100 + f"{number}.nii" for number in range(3)))
    given = names_of(tmp_path)
    assert len(set(given.values())) == 3 and max(map(len, given.values())) <= 80 and set(given) == set(files)
