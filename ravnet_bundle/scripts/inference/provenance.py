"""The origin of results: versions and weights; peak memory."""

import hashlib
import json
import sys
from pathlib import Path

BUNDLE = Path(__file__).resolve().parents[2]
WEIGHTS = BUNDLE / "models" / "model.pt"


def software(weights: str | Path | None = None) -> dict[str, str]:
    """The bundle's version, from `configs/metadata.json`, and the sha256 of the weights: its own, or another file's."""
    metadata = json.loads((BUNDLE / "configs" / "metadata.json").read_text())
    return {
        "version": metadata["version"],
        "weights": hashlib.sha256(Path(weights or WEIGHTS).read_bytes()).hexdigest(),
    }


def peak_memory_gib() -> float | None:
    """The most memory that this process has had at once, GiB; `None` where the system does not count it (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
