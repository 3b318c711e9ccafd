"""MONAI Label with the bundle, offline and over HTTP, as an annotator's 3D Slicer uses it: `make test-label`.

A copy of the bundle goes into the stock `monaibundle` app. The server infers, takes labels, trains, infers again and
scores. Its masks are compared, voxel for voxel, with those of `monai.bundle run` on the same weights. Prints a row per
step; exit code 0 only where all is as it should be.

python tests/ecosystem/label.py [--bundle FOLDER] [--ct FILE] [--log FILE]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import requests

ROOT = Path(__file__).resolve().parents[2]
NAME = "ravnet"
CASES, EPOCHS, SLICES = 5, 2, 24
# On the CPU; a proxy that nobody serves, so that whatever would be fetched fails instead; and no scoring but ours.
SETTINGS = {
    **os.environ,
    "CUDA_VISIBLE_DEVICES": "",
    "https_proxy": "http://127.0.0.1:9",
    "no_proxy": "127.0.0.1",
    "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
    "HOME": "",  # filled in: MONAI Label keeps a cache there
}


class Steps:
    """The printed table, and whether all of it holds."""

    def __init__(self) -> None:
        self.failed = 0
        print("| step | HTTP | found | |\n|---|--:|---|---|", flush=True)

    def row(self, step: str, status: int | str, found: str, holds: bool) -> None:
        self.failed += not holds
        print(f"| {step} | {status} | {found} | {'ok' if holds else '**FAILED**'} |", flush=True)


class Server:
    """A client of MONAI Label's HTTP interface."""

    def __init__(self, port: int):
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, method: str, path: str, **options) -> requests.Response:
        return requests.request(method, self.url + path, timeout=600, **options)

    def task(self, path: str, parameters: dict) -> tuple[int, str]:
        """Starts a task (training, scoring) and waits for its end: the HTTP code and "DONE", "ERROR" or "STOPPED"."""
        answer = self.ask("POST", path, json=parameters)
        while answer.ok and (state := answer.json()["status"]) in ("SUBMITTED", "RUNNING"):
            time.sleep(1)
            answer = self.ask("GET", f"/{path.split('/')[1]}/")
        return answer.status_code, state if answer.ok else answer.text

    def mask(self, image: str, folder: Path) -> tuple[int, nib.Nifti1Image | None]:
        answer = self.ask(
            "POST", f"/infer/{NAME}?image={image}&output=image", data={"params": json.dumps({"device": "cpu"})}
        )
        if not answer.ok:
            return answer.status_code, None
        file = folder / "answer.nii.gz"
        file.write_bytes(answer.content)
        mask = nib.load(file)
        return answer.status_code, nib.Nifti1Image(np.asarray(mask.dataobj), mask.affine)


@contextmanager
def serving(app: Path, studies: Path, log: Path) -> Iterator[Server]:
    """The server, started as its documentation says, on a free port; ready when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    conf = {
        "models": NAME,
        "zoo_source": "local",
        "sam2": "false",
        "epistemic_model": NAME,
        "epistemic_simulation_size": 2,
    }
    command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", app, "--studies", studies]
    command += ["--host", "127.0.0.1", "--port", port]
    command += [word for key, value in conf.items() for word in ("--conf", key, value)]
    with open(log, "w") as output:
        process = subprocess.Popen([*map(str, command)], env=SETTINGS, stdout=output, stderr=subprocess.STDOUT)
        server = Server(port)
        try:
            for _ in range(300):
                if process.poll() is not None:
                    raise SystemExit(f"the server ended as it started, see {log}:\n{log.read_text()[-3000:]}")
                try:
                    server.ask("GET", "/info/")
                    break
                except requests.ConnectionError:
                    time.sleep(1)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def own_mask(bundle: Path, ct: Path, folder: Path) -> nib.Nifti1Image:
    """What the bundle itself writes for a CT, in a process of its own in this same environment."""
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json"]
    command += ["--dataset_dir", str(ct), "--output_dir", str(folder)]
    ended = subprocess.run(command, cwd=bundle, env=SETTINGS, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"the bundle itself could not segment {ct}:\n{ended.stderr[-3000:]}")
    (file,) = folder.glob("*.nii.gz")
    return nib.load(file)


def same(mask: nib.Nifti1Image | None, other: nib.Nifti1Image) -> bool:
    """Voxel for voxel, and on the same grid to a thousandth of a millimetre."""
    return (
        mask is not None
        and mask.shape == other.shape
        and np.array_equal(mask.dataobj, other.dataobj)
        and np.allclose(mask.affine, other.affine, atol=1e-3)
    )


def told(mask: nib.Nifti1Image | None) -> str:
    return "no mask" if mask is None else f"{np.count_nonzero(mask.dataobj)} voxels of {np.prod(mask.shape)}"


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def real_ct() -> Path | None:
    """The smallest CT in `$RAVNET_DATA` or in `../shared/data` beside the repository."""
    folder = Path(os.environ.get("RAVNET_DATA") or ROOT.parent / "shared" / "data")
    return min(folder.glob("lits/imagesTr/*.nii.gz"), key=lambda file: file.stat().st_size, default=None)


def check(bundle: Path, ct: Path | None, work: Path, log: Path) -> int:
    """Runs all steps in the folder `work`; how many failed."""
    label = [sys.executable, "-m", "monailabel.main"]
    fetch = ["apps", "--download", "--name", "monaibundle", "--output", str(work)]  # a copy of what the package holds
    subprocess.run([*label, *fetch], env=SETTINGS, check=True, capture_output=True)
    app, studies = work / "monaibundle", work / "studies"
    stock = (app / "main.py").read_text()
    scoring = "            methods[n] = EpistemicScoring("
    assert stock.count(scoring) == 1
    (app / "main.py").write_text(stock.replace(scoring, f"            i.dimension = 3\n{scoring}"))  # as the docs' sed
    copy = app / "model" / NAME
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("__pycache__", "runs", "eval"))
    weights = copy / "models" / "model.pt"

    sys.path.insert(0, str(bundle))
    from scripts.phantom import make_decathlon, make_phantom, save_phantom

    studies.mkdir()
    if ct is None:
        save_phantom(make_phantom(99, shape=(256, 256, 40), spacing=(1.5, 1.5, 5)), studies / "ct.nii.gz")
    else:
        shutil.copy(ct, studies / "ct.nii.gz")
    make_decathlon(work / "cases", CASES, 0, 0, shape=(96, 96, 16), spacing=(4, 4, 12))

    steps = Steps()
    with serving(app, studies, log) as server:
        answer = server.ask("GET", "/info/")
        info = answer.json() if answer.ok else {}
        listed = [part for part in ("models", "trainers", "scoring") if NAME in info.get(part, {})]
        found = f"{NAME} in {', '.join(listed)}; labels {info['models'][NAME]['labels']}"
        steps.row("/info/", answer.status_code, found, len(listed) == 3)

        # Slicer's Train button sends the trainer's whole panel back, of each choice one; its `run_id` is empty
        panel = info.get("trainers", {}).get(NAME, {}).get("config", {})
        panel = {key: value[0] if isinstance(value, list) else value for key, value in panel.items()}
        shown = ", ".join(f"{key} {panel.get(key)!r}" for key in ("run_id", "learning_rate", "slices_per_epoch"))
        steps.row("Slicer's panel", answer.status_code, shown, panel.get("run_id") == "" and "learning_rate" in panel)

        status, first = server.mask("ct", work)
        equal = same(first, own_mask(copy, studies / "ct.nii.gz", work / "own"))
        found = f"{told(first)}; {'the same as' if equal else 'not'} the bundle's own"
        steps.row(f"infer on {'a phantom' if ct is None else ct.name}", status, found, status == 200 and equal)

        codes = []
        for image in sorted(work.glob("cases/imagesTr/*")):
            with open(image, "rb") as scan, open(work / "cases" / "labelsTr" / image.name, "rb") as label:
                name = image.name.removesuffix(".nii.gz")
                codes.append(server.ask("PUT", f"/datastore/image?image={name}", files={"file": scan}).status_code)
                codes.append(server.ask("PUT", f"/datastore/label?image={name}", files={"label": label}).status_code)
        steps.row(f"{CASES} phantoms and their labels sent", max(codes), f"{len(codes)} answers", set(codes) == {200})

        before, mask = digest(weights), first
        for turn in ("first", "second"):
            asked = {"max_epochs": EPOCHS, "slices_per_epoch": SLICES, "device": "cpu"}
            status, state = server.task(f"/train/{NAME}", panel | asked)
            now = digest(weights)
            found = f"{state}; model.pt {before[:8]} -> {now[:8]}"
            step = f"{turn} training, as by Slicer's button: {EPOCHS} epochs of {SLICES} slices"
            steps.row(step, status, found, state == "DONE" and now != before)

            status, after = server.mask("ct", work)
            equal = same(after, own_mask(copy, studies / "ct.nii.gz", work / f"own_{turn}"))
            other = after is not None and not np.array_equal(after.dataobj, mask.dataobj)
            found = f"{told(after)}; {'another' if other else 'the same'} mask as before it"
            found += f", {'the same as' if equal else 'not'} the bundle's own with these weights"
            steps.row(f"infer after the {turn} training", status, found, status == 200 and equal and other)
            before, mask = now, after

        status, state = server.task(f"/scoring/{NAME}", {})
        entropy = server.ask("GET", "/datastore/image/info?image=ct").json().get("epistemic_entropy", 0.0)
        found = f"{state}; entropy of the unlabelled CT {entropy:.3g}"
        # a mean over all voxels, mostly near 0; a sum along an axis is over 0.1 by its air alone
        good = state == "DONE" and status == 200 and 0 < entropy < 0.1
        steps.row("epistemic scoring", status, found, good)

        answer = server.ask("POST", "/activelearning/first", json={})
        sample = answer.json().get("id") if answer.ok else answer.text
        steps.row("next sample to label", answer.status_code, str(sample), sample == "ct")
    return steps.failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=ROOT / "ravnet_bundle")
    parser.add_argument("--ct", type=Path, default=real_ct(), help="default: a real one, where there is one")
    parser.add_argument("--log", type=Path, help="where the server's output is kept")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        SETTINGS["HOME"] = folder
        log = arguments.log or Path(folder, "server.log")
        failed = check(arguments.bundle.resolve(), arguments.ct, Path(folder), log)
        if failed:
            print(f"{failed} steps failed. The server's last words:\n{log.read_text()[-4000:]}", file=sys.stderr)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
