"""What results were made with."""

from __future__ import annotations

import hashlib
import json
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
