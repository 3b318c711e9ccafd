"""One archive with all that a training needs on a machine without network: the bundle and the slices of a data set.

python benchmarks/pack.py DATA ARCHIVE [--key value ...]

DATA are labelled scans, as for training; ARCHIVE is the .tar to write. Keys of `train.json` that decide what the slices
look like (`--pixel_size 2`) may follow. There, with what pyproject.toml lists as `tested` installed:

tar xf ARCHIVE && cd ravnet_bundle && python -m monai.bundle run training \\
    --config_file "['configs/train.json','configs/packed.json']" --output_dir runs --ckpt_dir runs/models

On a GPU add `configs/gpu.json`. The archive is for those who may have the data: it holds scans of patients.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path

from monai.bundle import ConfigParser

BUNDLE = Path(__file__).resolve().parents[1] / "ravnet_bundle"
PARTS = {"train": "training", "validate": "validation"}


def overlay(keys: dict[str, object]) -> bytes:
    """`packed.json`: files instead of scans, and the keys that they were made with."""
    changes = dict(keys)
    for key, part in PARTS.items():
        changes[f"{key}#dataset#data"] = []
        changes[f"{key}#dataset#transform"] = None
        changes[f"{key}#dataset#file"] = f"$@bundle_root + '/slices/{part}.npz'"
    return (json.dumps(changes, indent=4) + "\n").encode()


def write(data: Path, archive: Path, keys: dict[str, object]) -> None:
    """Makes the slices and writes the archive."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLE / "configs" / "train.json"))
    parser.update({"bundle_root": str(BUNDLE), "dataset_dir": str(data), **keys})
    parser.get_parsed_content("code_path")
    from scripts.training.slices import WITHOUT_LIVER, pack

    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive, "w") as tar:
        for name in ("configs", "scripts"):
            tar.add(BUNDLE / name, f"ravnet_bundle/{name}", filter=lambda m: None if "__pycache__" in m.name else m)
        transform, split = (parser.get_parsed_content(key) for key in ("train#preprocessing", "datasplit"))
        for part in (*PARTS.values(), "phantoms"):
            file = Path(folder) / f"{part}.npz"
            pack(WITHOUT_LIVER if part == "phantoms" else split[part], transform, file)
            tar.add(file, f"ravnet_bundle/slices/{part}.npz")
        entry = tarfile.TarInfo("ravnet_bundle/configs/packed.json")
        content = overlay(keys)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    print(f"{archive}: {archive.stat().st_size / 1e6:.1f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="DATA")
    parser.add_argument("archive", type=Path, metavar="ARCHIVE")
    arguments, rest = parser.parse_known_args()
    if len(rest) % 2 or not all(name.startswith("--") for name in rest[::2]):
        sys.exit(f"pack.py: expected --key value, got {' '.join(rest)}")
    keys = {name.removeprefix("--"): json.loads(value) for name, value in zip(rest[::2], rest[1::2])}
    write(arguments.data, arguments.archive, keys)


if __name__ == "__main__":
    main()
