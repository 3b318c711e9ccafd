"""Files are whole at every moment: `scripts/files.py`."""

import pytest

from scripts import files


def write(path, content):
    with files.atomic(path) as file:
        file.write(content)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "lits.csv"
    write(path, b"old")

    def full_disk(handle):
        raise OSError("No space left on device")

    monkeypatch.setattr(files.os, "fsync", full_disk)
    with pytest.raises(OSError):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
