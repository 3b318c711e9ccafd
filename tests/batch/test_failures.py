"""What goes wrong around the studies: one line that says so, the right exit code, and nothing that lies."""

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from commands import COMMAND, ROOT, coarse, debris

from ravnet_bundle import segment
from ravnet_bundle.scripts import files
from ravnet_bundle.scripts.batch import results
from ravnet_bundle.scripts.batch.interruption import INTERRUPTED
from ravnet_bundle.scripts.cli import main
from ravnet_bundle.scripts.inference.pipeline import Pipeline
from ravnet_bundle.scripts.inference.provenance import WEIGHTS, software
from ravnet_bundle.scripts.phantom import make_phantom, save_phantom

PIPELINE = "ravnet_bundle.scripts.inference.pipeline.Pipeline"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(PIPELINE, lambda **overrides: coarse())


@pytest.fixture(autouse=True)
def handlers(monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)


@pytest.fixture(scope="module")
def cts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cts")
    for name in "abcd":
        save_phantom(make_phantom(seed=1, shape=(40, 36, 8), spacing=(9, 9, 19)), folder / f"{name}.nii.gz")
    return folder


def computing(monkeypatch, compute) -> None:
    """Has studies computed by a function of the CT."""
    coarse()  # made before threads import modules, which MONAI would trip over

    class Computing:
        def __call__(self, ct):
            return compute(ct)

        def __getattr__(self, name):
            return getattr(coarse(), name)

    monkeypatch.setattr(PIPELINE, lambda **overrides: Computing())


def test_a_full_disk_ends_the_run_with_one_line_that_names_the_output(cts, tmp_path, monkeypatch):
    output, computed, flush = tmp_path / "out", [], os.fsync

    def compute(ct):
        computed.append(1)
        return coarse()(ct)

    def full(number):
        if (output / "b").exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(number)

    computing(monkeypatch, compute)
    monkeypatch.setattr(files.os, "fsync", full)
    monkeypatch.setattr(results, "write_table", lambda output: None)
    done, failed = segment(cts, output)
    assert (done.name, done.status, failed.status) == ("a", "done", "failed")
    assert failed.error.startswith(f"{output}: No space left on device") and "--resume" in failed.error
    assert len(computed) < 4 and debris(output) == [] and sorted(os.listdir(output)) == ["a"]


def test_results_that_were_removed_during_the_run_are_not_said_to_be_there(cts, tmp_path, monkeypatch):
    write = results.write_table

    def removed(output):
        shutil.rmtree(output / "a")
        write(output)

    monkeypatch.setattr(results, "write_table", removed)
    gone, there = segment([cts / "a.nii.gz", cts / "b.nii.gz"], tmp_path / "out")
    assert (gone.status, there.status) == ("failed", "done") and f"{tmp_path / 'out' / 'a'}: " in gone.error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"),
            "machine with",
        ),
        (MemoryError("Unable to allocate 3.2 GiB"), "machine with more"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "--device cpu"),
    ],
)
def test_memory_that_is_not_enough_is_told_in_words(error, says, cts, tmp_path, monkeypatch):
    def compute(ct):
        try:
            raise error
        except Exception as cause:
            raise RuntimeError("applying transform <scripts.inference.transforms.X object at 0x7f>") from cause

    computing(monkeypatch, compute)
    (outcome,) = segment(cts / "a.nii.gz", tmp_path / "out")
    assert outcome.error.startswith(f"{cts / 'a.nii.gz'}: not enough memory") and says in outcome.error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "settings",
    [{"threads": -1}, {"threads": 0}, {"device": "gpu0"}, {"workers": 0}, {"weights": "nowhere.pt"}, {"shard": "1"}],
    ids=str,
)
def test_what_no_study_can_be_done_with_is_a_value_error_of_one_line(settings, cts, tmp_path):
    (name,) = settings
    with pytest.raises(ValueError, match=f"^{name} .*{settings[name]}.*: [^\\n]*$"):
        segment(cts / "a.nii.gz", tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_no_temporary_folder_is_needed(cts, tmp_path, monkeypatch):
    def none(*_, **__):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr(tempfile, "mkdtemp", none)
    (outcome,) = segment(cts / "a.nii.gz", tmp_path / "out")
    assert outcome.status == "done"


@pytest.mark.parametrize("zipped", [True, False], ids=["as PyTorch saves", "as PyTorch saved before 1.6"])
def test_weights_of_ones_own_are_used_and_told(zipped, cts, tmp_path, monkeypatch):
    state = torch.load(WEIGHTS, weights_only=True)
    last = [name for name in state if name.endswith("bias")][-1]
    own, other = tmp_path / "own.pt", tmp_path / "other.pt"
    torch.save({**state, last: state[last] - 100}, own, _use_new_zipfile_serialization=zipped)
    torch.save({"x": torch.zeros(1)}, other)
    monkeypatch.setattr(PIPELINE, lambda **overrides: Pipeline(pixel_size=9.0, **overrides))
    output = tmp_path / "out"
    (outcome,) = segment(cts / "a.nii.gz", output, weights=own)
    assert outcome.volume_ml == 0  # no voxel is above a bias of -100
    assert software(own)["weights"] != software()["weights"]
    assert software(own)["weights"] in (output / "a" / "manifest.json").read_text()
    assert software(own)["weights"] in (output / "a" / "report.html").read_text()
    for bad in (other, cts / "a.nii.gz"):
        with pytest.raises(ValueError, match=f"^{bad}: cannot be loaded"):
            segment(cts / "a.nii.gz", output, weights=bad)


@pytest.fixture
def stdout(monkeypatch):
    """Standard output that leads to a file or a pipe, with an encoding of its own."""

    def to(file: io.IOBase, encoding: str = "ascii") -> None:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding))

    return to


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_that_cannot_show_a_name_shows_escapes(encoding, cts, tmp_path, stdout):
    shutil.copy(cts / "a.nii.gz", tmp_path / "Müller 山.nii.gz")
    printed = io.BytesIO()
    stdout(printed, encoding)
    assert main(["segment", str(tmp_path / "Müller 山.nii.gz"), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert b"ller_\\u5c71: 40 x 36 x 8 voxels" in printed.getvalue()


def test_a_reader_that_has_seen_enough_is_no_error(cts, tmp_path, stdout, capfd):
    reader, writer = os.pipe()
    os.close(reader)
    stdout(os.fdopen(writer, "wb"))
    assert main(["segment", str(cts / "a.nii.gz"), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert capfd.readouterr().err == ""


def test_an_output_that_takes_nothing_is_one_line(cts, tmp_path, stdout, capfd):
    with open("/dev/full", "wb", buffering=0) as full:
        stdout(full)
        assert main(["segment", str(cts / "a.nii.gz"), "-o", str(tmp_path / "out"), "--dry-run"]) == 1
    assert capfd.readouterr().err == "error: standard output: No space left on device\n"


def test_a_name_that_begins_with_a_dash_is_an_input(cts, tmp_path, monkeypatch, capsys):
    shutil.copy(cts / "a.nii.gz", tmp_path / "-ct.nii.gz")
    monkeypatch.chdir(tmp_path)
    assert main(["segment", "-ct.nii.gz", "-o", "out", "--dry-run"]) == 0
    assert ": 40 x 36 x 8 voxels" in capsys.readouterr().out


def test_an_input_that_is_not_there_is_said_before_libraries_are_loaded(tmp_path):
    code = (
        "import sys\nfrom ravnet_bundle.scripts.cli import main\n"
        "print(main(sys.argv[1:]), sorted({'torch', 'numpy', 'monai'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "segment", "none", "-o", str(tmp_path / "out")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "1 []"
    assert ended.stderr == "error: none: no such file or folder.\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("library", ["_multiarray_umath", "libtorch_cpu"])
def test_a_signal_while_libraries_are_loaded_is_one_line(number, library, cts, tmp_path):
    """As soon as the process has the library in its memory, which is long before it can do a study."""
    command = [*COMMAND, "segment", str(cts / "a.nii.gz"), "-o", str(tmp_path / "out"), "--quiet"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while library not in Path(f"/proc/{process.pid}/maps").read_text() and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(number)
    printed, errors = process.communicate(timeout=300)
    assert (process.returncode, printed) == (130, "")
    assert errors == "interrupted: complete studies are kept, --resume does the rest\n"
    assert not (tmp_path / "out").exists()


def test_a_signal_whose_exception_was_lost_still_ends_the_run(cts, tmp_path, monkeypatch, capsys):
    def compute(ct):
        INTERRUPTED.set()  # as the handler does; a destructor has swallowed what it raised
        return coarse()(ct)

    computing(monkeypatch, compute)
    assert main(["segment", str(cts), "-o", str(tmp_path / "out"), "--quiet"]) == 130
    assert capsys.readouterr().err == "interrupted: complete studies are kept, --resume does the rest\n"
    assert len(list((tmp_path / "out").glob("*/manifest.json"))) < 4 and debris(tmp_path / "out") == []
    INTERRUPTED.clear()
