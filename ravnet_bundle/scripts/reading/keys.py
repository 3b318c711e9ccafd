"""Keys of a config that nothing reads: MONAI takes a mistyped override for a new key, and ignores it."""

import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def refuse_unread_keys(files: Sequence[str]) -> None:
    """For a config's `initialize`: refuses a setting that is in none of `files`, of `configs/`, and that nothing reads.

    MONAI does not pass the config to its components. This function finds the running workflow in the call stack.
    Without a workflow it does nothing.

    Raises:
        ConfigError: names the key, and the most similar key of the files.
    """
    from monai.bundle import ConfigParser, ConfigWorkflow
    from monai.bundle.reference_resolver import ReferenceResolver
    from monai.bundle.utils import DEFAULT_MLFLOW_SETTINGS

    frame = inspect.currentframe()
    while frame and not isinstance(frame.f_locals.get("self"), ConfigWorkflow):
        frame = frame.f_back
    if not frame:
        return
    workflow = frame.f_locals["self"]
    config = workflow.parser.get()
    read = {id for text in _texts(config) for id in ReferenceResolver.match_refs_pattern(text)}
    read |= {workflow.init_id, workflow.run_id, workflow.final_id}
    read |= DEFAULT_MLFLOW_SETTINGS["configs"].keys()  # MONAI's own clients always send these
    own = ConfigParser.load_config_files([CONFIGS / name for name in files])
    if (key := next(_unread(config, own, read), None)) is None:
        return
    names = {name.rsplit("#", 1)[-1]: name for name in reversed([*_settings(own)])}
    like = difflib.get_close_matches(key.rsplit("#", 1)[-1], names, 1, 0.7)
    meant = f"; did you mean {names[like[0]]}?" if like else "."
    raise ConfigError(f"nothing reads the key {key}{meant} The keys are those of configs/{files[0]}.")


def _texts(part: Any) -> Iterator[str]:
    if isinstance(part, str):
        yield part
    elif isinstance(part, (Mapping, list)):
        for value in part.values() if isinstance(part, Mapping) else part:
            yield from _texts(value)


def _group(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" not in value


def _unread(part: Mapping, own: Mapping, read: set[str], within: str = "") -> Iterator[str]:
    """The keys of `part` that are unknown (not in `own`) and unused.

    A section or a list of steps that an overlay adds does not count.
    """
    for key, value in part.items():
        name = within + key
        if name in read or key.startswith("_"):
            continue
        if key in own:
            if _group(value) and _group(own[key]):
                yield from _unread(value, own[key], read, f"{name}::")
            continue
        steps = isinstance(value, list) and value and all(str(step).startswith(("$", "@")) for step in value)
        if not (isinstance(value, Mapping) or steps or any(id.startswith(f"{name}::") for id in read)):
            yield name.replace("::", "#")


def _settings(part: Mapping, within: str = "") -> Iterator[str]:
    """The keys that a user may have meant, from the outermost in."""
    yield from (within + key for key in part if key.isidentifier())
    for key, value in part.items():
        if _group(value) and key.isidentifier():
            yield from _settings(value, f"{within}{key}#")
