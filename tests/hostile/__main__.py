from pathlib import Path

from . import table

target = Path(__file__).parents[2] / "ravnet_bundle" / "docs" / "hostile.md"
target.write_text(table())
