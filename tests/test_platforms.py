"""What Windows and macOS lack is on no way: the same process without it segments, and opens the three workflows."""

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np

from scripts.phantom import make_phantom, save_phantom

ROOT = Path(__file__).resolve().parents[1]

ELSEWHERE = """
import builtins, io, json, os, signal, sys

for name in ("fcntl", "resource"):
    sys.modules[name] = None  # an import of it raises ImportError
for place, names in {
    os: ("sched_getaffinity", "memfd_create", "O_CLOEXEC", "fork", "geteuid"),
    signal: ("pthread_sigmask", "SIG_BLOCK", "SIG_UNBLOCK", "SIG_SETMASK"),
}.items():
    for name in names:
        delattr(place, name)

def without_proc(file, *more, own=io.open, **options):
    if str(file).startswith("/proc"):
        raise FileNotFoundError(2, "no such file", str(file))
    return own(file, *more, **options)

def without_folders(path, flags, *more, own=os.open, **options):
    if os.path.isdir(path):
        raise PermissionError(13, "a folder", str(path))
    return own(path, flags, *more, **options)

builtins.open = io.open = without_proc
os.open = without_folders

from ravnet_bundle.scripts.cli import main

ct, output, bundle = sys.argv[1:]
code = main(["segment", ct, "-o", output, "--fast", "--quiet"])

sys.path.insert(0, bundle)
from monai.bundle import ConfigWorkflow

missing = []
for names in (("train",), ("train", "evaluate"), ("inference",)):
    configs = [f"{bundle}/configs/{name}.json" for name in names]
    flow = ConfigWorkflow(
        configs, workflow_type="infer" if "inference" in names else "train", logging_file=False, bundle_root=bundle,
        dataset_dir=output + "/nowhere", output_dir=output + "/runs", device="cpu",
    )
    flow.initialize()
    missing += flow.check_properties()
print(json.dumps([code, missing]))
"""


def test_without_what_linux_alone_has_a_ct_is_segmented_and_the_workflows_open(tmp_path):
    save_phantom(make_phantom(seed=1, shape=(52, 48, 18), spacing=(7, 7, 12)), tmp_path / "ct.nii.gz")
    arguments = [tmp_path / "ct.nii.gz", tmp_path / "out", ROOT / "ravnet_bundle"]
    command = [sys.executable, "-c", ELSEWHERE, *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert json.loads(ended.stdout.splitlines()[-1]) == [0, []]
    (mask,) = (tmp_path / "out").glob("*/liver.nii.gz")
    assert np.asarray(nib.load(mask).dataobj).any()
    assert not [*(tmp_path / "out").rglob("*.lock"), *(tmp_path / "out").rglob("*.part")]
