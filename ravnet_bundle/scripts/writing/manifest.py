"""The manifest, a study's last file: its files and their origin."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import atomic


def write_manifest(path: str | os.PathLike, files: Sequence[str | os.PathLike], **about: Any) -> None:
    """Writes `{"about": {...}, "files": {name: {"size": bytes, "sha256": hex}}}` atomically. Write it last.

    Args:
        path: the JSON file.
        files: existing files in its folder or below; named relative to it, so that the folder can be moved.
        about: origin of the files, as JSON: fingerprint of the input, sha256 of the weights, versions.

    Raises:
        OSError: a file cannot be read, or the manifest cannot be written.
        ValueError: a file is outside the manifest's folder.
    """
    path = Path(path)
    entries = {Path(file).relative_to(path.parent).as_posix(): _fingerprint(Path(file)) for file in files}
    with atomic(path) as file:
        file.write(json.dumps({"about": about, "files": entries}, indent=2, sort_keys=True).encode() + b"\n")


def complete(path: str | os.PathLike, **about: Any) -> bool:
    """Whether the manifest exists, has the same `about`, and all its files are unchanged.

    A damaged manifest gives `False`: the study must be done again.
    """
    path = Path(path)
    try:
        manifest = json.loads(path.read_bytes())
        return manifest["about"] == json.loads(json.dumps(about)) and all(
            (path.parent / name).stat().st_size == entry["size"] and _fingerprint(path.parent / name) == entry
            for name, entry in manifest["files"].items()
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _fingerprint(path: Path) -> dict[str, int | str]:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            size += len(block)
    return {"size": size, "sha256": digest.hexdigest()}
