"""Many studies on many machines: shards, and workers that are killed."""

import importlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from commands import BUNDLE, ROOT, contents, debris

from ravnet_bundle import segment
from ravnet_bundle.scripts.batch.claims import Claim
from ravnet_bundle.scripts.batch.shards import Shard
from ravnet_bundle.scripts.cli import main
from ravnet_bundle.scripts.phantom import make_phantom, save_phantom
from ravnet_bundle.scripts.reading import Found, Scan

RECIPES = BUNDLE / "docs" / "cohort"


@pytest.fixture(scope="module")
def cohort(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    """Three studies, and what an undisturbed process makes of them."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "in").mkdir()
    for seed in range(3):
        phantom = make_phantom(seed=seed, shape=(40, 36, 8), spacing=(9, 9, 19))
        save_phantom(phantom, folder / "in" / f"{seed}.nii.gz")
    threads = torch.get_num_threads()
    outcomes = segment(folder / "in", folder / "out", threads=1)
    torch.set_num_threads(threads)
    assert [outcome.status for outcome in outcomes] == ["done"] * 3
    return folder / "in", contents(folder / "out")


@pytest.fixture(scope="module")
def dask():
    """Dask, whose workers are spoken to over the loopback interface."""
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'ravnet-bundle[dask]'")
    with socket.socket() as server, socket.socket() as client:
        try:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.connect(server.getsockname())
        except OSError:
            pytest.skip("no loopback interface: ip link set lo up")
    return importlib.import_module("dask")


@pytest.fixture
def elsewhere(dask) -> Iterator[str]:
    """The address of a scheduler that was there before, with one worker of two threads."""
    from distributed import LocalCluster

    there = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "protocol": "tcp"}
    with LocalCluster(**there, dashboard_address="127.0.0.1:0", silence_logs=False) as cluster:
        yield cluster.scheduler_address


def found(names: list[str]) -> Found:
    scans = [Scan(name, Path(f"/in/{name}"), (Path(f"/in/{name}"),), "image") for name in names]
    return Found(tuple(scans), tuple((f"/in/bad{k}", f"bad{k}: broken") for k in range(50)), ())


@pytest.mark.parametrize("number", [1, 2, 7, 300])
def test_each_study_and_each_refusal_belongs_to_one_shard(number):
    whole = found([f"ct_{k}" for k in range(200)])
    parts = [Shard(index, number).of(whole) for index in range(number)]
    assert sorted(scan.name for part in parts for scan in part.scans) == sorted(scan.name for scan in whole.scans)
    assert sorted(pair for part in parts for pair in part.refused) == sorted(whole.refused)
    assert max(len(part.scans) for part in parts) < 2 * 200 / number + 10


def test_a_study_that_joins_moves_no_other_to_another_shard():
    names = [f"ct_{k}" for k in range(50)]
    before = {scan.name for scan in Shard(1, 4).of(found(names)).scans}
    after = {scan.name for scan in Shard(1, 4).of(found(["new", *reversed(names)])).scans}
    assert before == after - {"new"}


def test_an_input_that_is_not_there_is_said_by_every_shard(tmp_path):
    for shard in ("0/2", "1/2"):
        (outcome,) = segment(tmp_path / "none", tmp_path / "out", shard=shard)
        assert outcome.status == "failed" and "no such file" in outcome.error


@pytest.mark.parametrize("text", ["2/2", "-1/2", "0/0", "1", "a/b", "1/2/3", "0.5/2"])
def test_a_shard_that_cannot_be_is_refused_before_anything_is_read(text, tmp_path):
    with pytest.raises(ValueError, match="counts from 0"):
        segment(tmp_path / "none", tmp_path / "out", shard=text)


def test_a_folder_that_another_process_removes_under_a_claim_is_made_again(tmp_path, monkeypatch):
    """Processes that start at once try the output folder, and remove it if nothing is in it."""
    opened, chances = os.open, iter([True, True, False])

    def late(path, *arguments):
        if next(chances):
            path.parent.rmdir()
        return opened(path, *arguments)

    monkeypatch.setattr(os, "open", late)
    claim = Claim.take(tmp_path / "out", "output")
    assert claim.path.exists()
    claim.release()
    assert not (tmp_path / "out").exists()


def test_a_folder_that_was_there_before_the_claim_stays_as_it_was(tmp_path):
    output = tmp_path / "livers"
    output.mkdir()
    output.chmod(0o2770)
    before = output.stat()
    Claim.take(output, "output").release()
    after = output.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode) and os.listdir(output) == []


def slurm() -> list[str]:
    return ["bash", str(RECIPES / "slurm.sh")]


def kubernetes() -> list[str]:
    yaml = pytest.importorskip("yaml", reason="PyYAML, which comes with Dask, reads the recipe")
    spec = yaml.safe_load((RECIPES / "kubernetes.yaml").read_text())["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    given = {item["name"]: item["value"] for item in container["env"]}
    assert spec["completionMode"] == "Indexed" and int(given["SHARDS"]) == spec["completions"]
    return [*container["command"], *container["args"]]


def test_the_recipes_do_their_shards_at_once_and_the_table_has_every_study(cohort, tmp_path):
    """Shard 0 of 2 as SLURM's array runs it, shard 1 as Kubernetes' Indexed Job does, beside each other."""
    source, expected = cohort
    command = tmp_path / "bin" / "ravnet"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m ravnet_bundle.scripts.cli "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment |= {"CTS": str(source), "LIVERS": str(tmp_path / "out"), "SHARDS": "2"}
    array = environment | {"SLURM_ARRAY_TASK_ID": "0", "SLURM_CPUS_PER_TASK": "1"}
    index = environment | {"JOB_COMPLETION_INDEX": "1", "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen(slurm(), env=array, **pipes), subprocess.Popen(kubernetes(), env=index, **pipes)]
    told = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert sum(f" of 3 in {tmp_path / 'out'}" in output for output, _ in told) == 0  # neither did all
    assert contents(tmp_path / "out") == expected
    assert debris(tmp_path / "out") == []


def test_a_table_waits_for_one_that_is_being_written(cohort, tmp_path):
    """The one that looked first must not write last: it would leave out what the other has seen."""
    output = tmp_path / "out"
    claim = Claim.take(output, "measures.csv")
    with ThreadPoolExecutor(1) as beside:
        ended = beside.submit(segment, cohort[0] / "0.nii.gz", output, threads=1, fast=True)
        while not (output / "0" / "manifest.json").exists():
            assert not ended.done()
            time.sleep(0.02)
        assert not wait([ended], timeout=1).done and not (output / "measures.csv").exists()
        claim.release()
    assert ended.result()[0].status == "done" and (output / "measures.csv").exists()


def kill_one_at_work(output: Path) -> None:
    """Kills a process that is at a study: it has the study's lock file open."""
    while True:
        for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
            with suppress(OSError):  # it has ended, or is not ours
                lock = Path(os.readlink(descriptor))
                if lock.parent == output and lock.name not in (".output.lock", ".measures.csv.lock"):
                    assert int(descriptor.parts[2]) != os.getpid()
                    return os.kill(int(descriptor.parts[2]), signal.SIGKILL)
        time.sleep(0.02)


def test_a_killed_workers_study_is_done_by_another_and_none_is_done_twice(cohort, tmp_path, dask):
    source, expected = cohort
    output, written = tmp_path / "out", {}
    with ThreadPoolExecutor(1) as beside:
        ended = beside.submit(segment, source, output, workers=2, threads=1)
        kill_one_at_work(output)
        while not ended.done():
            for manifest in output.glob("*/manifest.json"):
                facts = manifest.stat()
                written.setdefault(manifest.parent.name, set()).add((facts.st_ino, facts.st_mtime_ns))
            time.sleep(0.05)
    assert sorted(outcome.name for outcome in ended.result()) == ["0", "1", "2"]
    # kept: the worker died after the last file was written, and before it had told of it
    assert {outcome.status for outcome in ended.result()} <= {"done", "kept"}
    assert {name: len(times) for name, times in written.items()} == dict.fromkeys("012", 1)
    assert contents(output) == expected
    assert debris(output) == []


def test_a_study_whose_workers_die_of_it_fails_in_one_line(cohort, tmp_path, dask):
    output = tmp_path / "out"
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        ThreadPoolExecutor(1) as beside,
    ):  # 3 by default
        ended = beside.submit(segment, cohort[0] / "0.nii.gz", output, workers=1)
        kill_one_at_work(output)
    (outcome,) = ended.result()
    assert outcome.status == "failed" and outcome.error.isprintable()
    assert outcome.error.startswith(f"{cohort[0] / '0.nii.gz'}: 1 workers died on it")


def test_workers_of_a_scheduler_elsewhere_do_the_same(cohort, tmp_path, elsewhere):
    source, expected = cohort
    outcomes = segment(source, tmp_path / "out", threads=1, workers=elsewhere)
    assert [outcome.status for outcome in outcomes] == ["done"] * 3
    assert contents(tmp_path / "out") == expected


def test_a_worker_with_other_weights_does_nothing(cohort, tmp_path, elsewhere, monkeypatch):
    monkeypatch.setitem(segment.__globals__, "software", lambda weights: {"version": "0", "weights": "f" * 64})
    outcomes = segment(cohort[0], tmp_path / "out", workers=elsewhere)
    assert [outcome.status for outcome in outcomes] == ["failed"] * 3
    assert all("install the same everywhere" in outcome.error for outcome in outcomes)
    assert not (tmp_path / "out").exists()


def test_no_scheduler_is_a_usage_error(cohort, tmp_path, dask, monkeypatch, capsys):
    monkeypatch.setattr("ravnet_bundle.scripts.batch.team.CONNECT", 1)
    assert_usage_error(cohort[0], "tcp://127.0.0.1:9", "no Dask cluster", tmp_path, monkeypatch, capsys)


def test_workers_without_dask_are_a_usage_error(cohort, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert_usage_error(cohort[0], "2", "pip install 'ravnet-bundle[dask]'", tmp_path, monkeypatch, capsys)


def assert_usage_error(source: Path, workers: str, says: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    assert main(["segment", str(source), "-o", str(tmp_path / "out"), "--workers", workers]) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith("error: ") and says in line and told.out == ""
    assert not (tmp_path / "out").exists()
