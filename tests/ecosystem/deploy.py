"""The bundle in a MONAI Deploy app, on the CPU: `make test-deploy`.

The app in `map/` runs over a DICOM CT with the bundle's folder, with that folder inside another and paths given by
environment variables, as in a container, and with a `model.ts`. Each DICOM SEG is compared, voxel for voxel, with the
mask of `monai.bundle run`. Prints a row per form; exit code 0 only where all agree.

python tests/ecosystem/deploy.py [--bundle FOLDER] [--ct DICOM]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's world is LPS


def run(module: str, *arguments: object, folder: Path, **settings: object) -> None:
    """Runs a module or a folder as a program on the CPU; raises `SystemExit` with its last words where it fails."""
    command = [sys.executable, *(("-m", module) if module.startswith("monai.") else (module,)), *map(str, arguments)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **{name: str(value) for name, value in settings.items()}}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{ended.stdout[-2000:]}{ended.stderr[-3000:]}")


def agreement(folder: Path, own: nib.Nifti1Image) -> tuple[int, int]:
    """The voxels of the one DICOM SEG in a folder, and those in which it differs from a mask."""
    (file,) = folder.glob("*.dcm")
    seg = hd.seg.segread(file)
    grid = hd.VolumeGeometry(TO_RAS @ own.affine, own.shape, "PATIENT", seg.FrameOfReferenceUID)
    liver = seg.get_volume(combine_segments=True, allow_missing_positions=True)  # empty frames are left out
    found = liver.match_geometry(grid, tol=1e-3).array
    return np.count_nonzero(found), np.count_nonzero(found != np.asarray(own.dataobj))


def check(bundle: Path, ct: Path, work: Path) -> bool:
    """Runs all forms in the folder `work`; whether all agree with the bundle itself."""
    held = shutil.copytree(bundle, work / "models" / "ravnet_bundle", ignore=shutil.ignore_patterns("__pycache__"))
    inference = ("--config_file", "configs/inference.json")
    run("monai.bundle", "run", *inference, "--dataset_dir", ct, "--output_dir", work / "own", folder=held)
    (file,) = work.glob("own/*.nii.gz")
    own = nib.load(file)
    ts = work / "model.ts"
    export = ("--filepath", ts, "--ckpt_file", "models/model.pt", "--meta_file", "configs/metadata.json")
    run("monai.bundle", "ckpt_export", "network_def", *export, *inference, folder=held)

    app, paths = str(HERE / "map"), ("--input", ct, "--output")
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    run(app, *paths, work / "folder", "--model", held, folder=elsewhere)
    (work / "container").mkdir()
    variables = {"INPUT": ct, "OUTPUT": work / "container", "MODEL": work / "models"}
    run(app, folder=elsewhere, **{f"HOLOSCAN_{name}_PATH": value for name, value in variables.items()})
    run(app, *paths, work / "script", "--model", ts, folder=elsewhere, PYTHONPATH=held)

    print(f"| form | voxels of {np.count_nonzero(own.dataobj)} | that differ |\n|---|--:|--:|")
    forms = {"folder": "the bundle's folder", "container": "as in a container", "script": "model.ts"}
    differing = 0
    for name, form in forms.items():
        voxels, differ = agreement(work / name, own)
        print(f"| {form} | {voxels} | {differ} |")
        differing += differ
    return not differing


def real_ct() -> Path:
    """The CHAOS CT in `$RAVNET_DATA` or in `../shared/data` beside the repository."""
    return Path(os.environ.get("RAVNET_DATA") or ROOT.parent / "shared" / "data") / "chaos_ct" / "dicom"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=ROOT / "ravnet_bundle")
    parser.add_argument("--ct", type=Path, default=real_ct(), help="a folder with one DICOM CT series")
    arguments = parser.parse_args()
    if not arguments.ct.is_dir():
        parser.error(f"no DICOM CT in {arguments.ct}: name a folder with --ct")
    with tempfile.TemporaryDirectory() as folder:
        agreed = check(arguments.bundle.resolve(), arguments.ct.resolve(), Path(folder))
    raise SystemExit(not agreed)


if __name__ == "__main__":
    main()
