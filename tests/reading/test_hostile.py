"""Malformed and hostile input: each case of `tests/hostile` is refused in one line, or read rightly."""

import json
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hostile import CASES, table
from hostile.case import AFFINE, ct, save

from scripts.reading import CTError, check_header, find, load


def listing(folder):
    return sorted((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*"))


def canonical(array, affine):
    image = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(array, np.float32), np.asarray(affine)))
    return image.get_fdata(), image.affine


def reading(source):
    """Volumes of the scans that a source holds, and the lines of what is refused."""
    found = find([source])
    lines, volumes = [line for _, line in found.refused], []
    for scan in found.scans:
        try:
            check_header(scan)
            volumes.append(load(scan))
        except CTError as error:
            lines.append(str(error))
    return volumes, lines


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_hostile_input_is_refused_in_one_line_or_read_rightly(case, tmp_path, capfd):
    place = tmp_path / "in"
    place.mkdir()
    source = case.make(place)
    before = listing(place)
    capfd.readouterr()
    volumes, lines = reading(source)
    assert capfd.readouterr() == ("", "") or case.name.startswith(".mha")  # MetaIO prints what it finds wrong
    others = set(tmp_path.iterdir()) - {place}
    assert listing(place) == before
    assert not others
    for line in lines:
        assert line.isprintable() and len(line) < 1000
    if case.refused:
        assert not volumes
        assert any(case.says in line for line in lines), lines
    else:
        assert not lines
        assert len(volumes) == case.scans
        for volume in volumes:
            assert case.says in volume.meta["doubts" if case.doubted else "notes"]
            assert bool(volume.meta["doubts"]) == case.doubted
            if not case.changed:
                assert_the_ct(volume)

    (place / "beside").mkdir()
    good = save(place / "beside" / "good.nii.gz")
    (scan,) = (scan for scan in find([place]).scans if scan.source == good)
    assert_the_ct(load(scan))


def assert_the_ct(volume):
    expected, found = canonical(ct(), AFFINE), canonical(volume, volume.affine)
    np.testing.assert_allclose(found[1], expected[1], atol=0.05)
    np.testing.assert_allclose(found[0], expected[0], atol=1)


PEAK = """
import json, resource, sys
sys.path[:0] = json.loads(sys.argv[1])
from test_hostile import reading
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
warm, sources = json.loads(sys.argv[2]), json.loads(sys.argv[3])
for source in warm:
    assert len(reading(source)[0]) == 1, source
growth = {}
for name, source in sources.items():
    before = peak()
    reading(source)
    growth[name] = peak() - before
print(json.dumps(growth))
"""


def test_what_claims_or_packs_much_takes_little_memory(tmp_path):
    def make(number, case):
        place = tmp_path / str(number)
        place.mkdir()
        return str(case.make(place))

    large = [case for case in CASES if re.search(r"bomb|claims|of zeros|65535", case.name)]
    assert len(large) > 12
    sources = {case.name: make(number, case) for number, case in enumerate(large)}
    warm = [make(case.name, case) for case in CASES if case.name in (".mha", ".nrrd", "zip of DICOM", "NIfTI-2")]
    arguments = [json.dumps(sys.path), json.dumps(warm), json.dumps(sources)]
    ended = subprocess.run([sys.executable, "-c", PEAK, *arguments], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    growth = json.loads(ended.stdout.splitlines()[-1])
    assert growth.keys() == sources.keys()
    assert max(growth.values()) < 64, growth  # MB; each claims or packs 256 MB or more


def test_the_table_in_the_docs_is_current():
    docs = Path(__file__).parents[2] / "ravnet_bundle" / "docs" / "hostile.md"
    assert docs.read_text() == table(), "run `python -m hostile` in tests/"
