"""The rooms of `scripts/`: few, imported downward only, each module short and named once; short front pages."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "ravnet_bundle" / "scripts"
ROOMS = (  # from low to high: a room may import those before it
    "blocks", "networks", "files", "geometry", "grid", "phantom", "inference", "training", "evaluation",
    "reading", "writing", "assessment", "report", "batch", "paper", "cli",
)  # fmt: skip
MODULES = {".".join(path.relative_to(SCRIPTS).with_suffix("").parts): path for path in sorted(SCRIPTS.rglob("*.py"))}


def imported(module: str) -> Iterator[str]:
    """The modules of ours that one imports, wherever in its text: `room.module`, or `room.__init__`."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            assert not any(name.name.split(".")[0] in ("scripts", "ravnet_bundle") for name in node.names), module
        elif isinstance(node, ast.ImportFrom):
            assert node.level or (node.module or "").split(".")[0] not in ("scripts", "ravnet_bundle"), module
            if node.level:
                start = module.split(".")[: -node.level] + (node.module.split(".") if node.module else [])
                for name in node.names:
                    ways = ([*start, name.name], [*start, name.name, "__init__"], start, [*start, "__init__"])
                    yield next(way for way in map(".".join, ways) if way in MODULES)


def test_every_entry_is_a_room_or_its_only_module():
    entries = {path.stem for path in SCRIPTS.iterdir() if path.name != "__pycache__"}
    assert entries == {*ROOMS, "__init__"} and len(entries) <= 17


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"__init__"}))
def test_a_module_imports_only_rooms_below_its_own(module):
    room = module.split(".")[0]
    above = [name for name in imported(module) if ROOMS.index(name.split(".")[0]) > ROOMS.index(room)]
    assert not above


def test_no_imports_go_round_in_a_circle():
    # a package's own __init__, which gathers its modules, is loaded before any of them and waits for none
    left = {module: {name for name in imported(module) if name != module} for module in MODULES}
    while free := [module for module, names in left.items() if not names & left.keys()]:
        left = {module: names for module, names in left.items() if module not in free}
    assert not left


def test_no_module_is_longer_than_300_lines():
    lengths = {module: path.read_text().count("\n") for module, path in MODULES.items()}
    assert not {module: length for module, length in lengths.items() if length > 300}


def test_no_file_name_is_there_twice():
    root = Path(__file__).parents[1]
    paths = [path for folder in (SCRIPTS, root / "tests", root / "benchmarks") for path in folder.rglob("*.py")]
    names = [path.name for path in paths if path.name not in ("__init__.py", "__main__.py")]
    assert sorted(set(names)) == sorted(names)


def test_the_front_pages_and_the_training_config_stay_short():
    bundle = SCRIPTS.parent
    assert (bundle.parent / "README.md").read_text().count("\n") <= 120
    assert (bundle / "docs" / "README.md").stat().st_size <= 9_216
    assert (bundle / "configs" / "train.json").stat().st_size <= 10_240
