"""The command `ravnet`, and what it leaves in a folder."""

import subprocess
import sys
from functools import cache
from pathlib import Path

from ravnet_bundle.scripts.inference.pipeline import Pipeline

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "ravnet_bundle"
COMMAND = [sys.executable, "-m", "ravnet_bundle.scripts.cli"]
FILES = ["liver.nii.gz", "manifest.json", "measures.json", "preview.png", "report.html"]


def ravnet(*arguments, **more) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, **more)


def start(*arguments) -> subprocess.Popen:
    pipe = subprocess.PIPE
    return subprocess.Popen([*COMMAND, *map(str, arguments)], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def contents(output: Path) -> dict[str, bytes]:
    """Every file under a folder but those that hold a run time: reports, and the manifests, which hold their hashes."""
    files = [path for path in output.rglob("*") if path.is_file() and path.name not in ("report.html", "manifest.json")]
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


def debris(output: Path) -> list[Path]:
    return [*output.rglob(".*.part"), *output.rglob(".*.lock")]


@cache
def coarse() -> Pipeline:
    """The pipeline on large pixels, for tests of what is done around it."""
    return Pipeline(pixel_size=9.0)
