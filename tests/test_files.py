"""Files are whole at every moment: `scripts/files.py`."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

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


def test_content_is_on_the_disk_before_the_name_and_the_name_before_the_next_file(tmp_path, monkeypatch):
    happened = []

    def watched(what, function):
        def call(*args):
            happened.append(what(*args))
            return function(*args)

        return call

    def flushed(handle):
        return Path(os.readlink(f"/proc/self/fd/{handle}")).name

    monkeypatch.setattr(files.os, "fsync", watched(flushed, os.fsync))
    monkeypatch.setattr(files.os, "replace", watched(lambda source, target: f"-> {target.name}", os.replace))
    write(tmp_path / "a", b"content")
    assert happened == [".a.part", "-> a", tmp_path.name]


CHILD = """
import sys
from scripts import files

for count in range(10**6):
    with files.atomic(sys.argv[1]) as file:
        for _ in range(16):
            file.write(bytes([count % 256]) * 2**16)
"""


def test_a_kill_leaves_a_whole_file_and_what_the_next_try_replaces(tmp_path):
    path = tmp_path / "mask.nii.gz"
    root = Path(__file__).parents[1] / "ravnet_bundle"
    for moment in range(10):
        writer = subprocess.Popen([sys.executable, "-c", CHILD, path], env={**os.environ, "PYTHONPATH": str(root)})
        while not path.exists():
            assert writer.poll() is None
            time.sleep(0.001)
        time.sleep(random.Random(moment).uniform(0, 0.05))
        writer.kill()
        writer.wait()
        content = path.read_bytes()
        assert len(content) == 2**20 and len(set(content)) == 1
        assert {file.name for file in tmp_path.iterdir()} <= {path.name, f".{path.name}.part"}
        path.unlink()
    write(path, b"next")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"next"]
