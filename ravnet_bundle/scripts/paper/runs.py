"""One network's training and evaluation by train.json and evaluate.json with a few overrides, in one folder."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from ..files import atomic

logger = logging.getLogger(__name__)

# Keys that may differ between two machines of one comparison: they do not change the result.
PLACES = ("bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "device", "cache_dir", "save_interval")


# Every network sees every slice; the shipped network's first pass, which saves time, is not compared.
EVALUATION = {"validate#inferer": "@train#inferer"}


class Run:
    """One network's folder: settings.json, the training's files, record.json when it has ended, a folder per split.

    Each step writes a file when it is done, so that a run resumes after any kill.

    Args:
        folder: of this run's results.
        training: folder of its training; runs may share it.
        bundle_root: folder with `configs/`.
        overrides: id -> raw value, over train.json, for `ConfigParser`.
        scans: part of the data -> names of its scans.
        split: the part to evaluate.
        refinement: a transform of the mask `pred` on the network's grid, before it goes back to the scan's.
    """

    def __init__(
        self,
        folder: Path,
        training: Path,
        bundle_root: Path,
        overrides: Mapping[str, Any],
        scans: Mapping[str, list[str]],
        split: str,
        refinement: Callable | None = None,
    ):
        self.folder, self.training, self.bundle_root = folder, training, bundle_root
        self.results, self.split, self.refinement = folder / split, split, refinement
        self.masks = self.results / "masks"
        self.overrides = dict(overrides)
        parser = ConfigParser(load(self._config("train")))
        parser.update(self.overrides)
        train = {key: value for key, value in parser.config.items() if key not in PLACES}
        self.settings = plain({"train": train, "scans": scans})
        self.epochs = parser["max_epochs"]
        self.slices = self.epochs * parser["slices_per_epoch"]

    def _config(self, name: str) -> Path:
        return self.bundle_root / "configs" / f"{name}.json"

    def _workflow(self, *configs: str, **more: Any) -> ConfigWorkflow:
        files = [str(self._config(name)) for name in configs]
        settings = {**self.overrides, "ckpt_dir": str(self.training / "models"), **more}
        return ConfigWorkflow(files, workflow_type="train", logging_file=False, **settings)

    def check(self) -> None:
        """Raises `ValueError`, with the differences, if the training was begun with other settings."""
        before = load(self.training / "settings.json")
        found = list(differences(before, self.settings)) if before else []
        if found:
            raise ValueError(
                f"{self.training} was made with other settings ({'; '.join(found[:3])}{'; ...' if found[3:] else ''}): "
                "name another output_dir, or delete that folder."
            )

    def record(self) -> dict[str, Any] | None:
        """Facts about the ended training: parameters, epochs, slices, seed, commit, hardware."""
        return load(self.training / "record.json")

    def train(self) -> bool:
        """Trains or resumes; false if SIGTERM ended it early."""
        self.check()
        (self.folder / "failed.json").unlink(missing_ok=True)
        state = self.training / "resume.pt"
        if self.record() is None:
            save(self.settings, self.training / "settings.json")
            flow = self._workflow("train", output_dir=str(self.training))
            flow.initialize()
            flow.run()
            if not state.exists() or torch.load(state, weights_only=True, mmap=True)["epoch"] < self.epochs:
                return False
            network = flow.parser.get_parsed_content("network")
            save(
                {
                    "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
                    "epochs": self.epochs,
                    "slices": self.slices,
                    "seed": self.settings["train"]["seed"],
                    "commit": commit(self.bundle_root),
                    "hardware": hardware(),
                },
                self.training / "record.json",
            )
        state.unlink(missing_ok=True)  # four times the weights, and no longer needed
        return True

    def summary(self) -> dict[str, Any] | None:
        """The evaluation's `summary.json`, if it was made with the current evaluate.json."""
        same = load(self.results / "settings.json") == self._evaluation()
        return load(self.results / "summary.json") if same else None

    def evaluate(self) -> None:
        """Writes the files of `CaseTables` and the masks of the split's scans, unless they exist."""
        if self.summary() is not None:
            return
        (self.results / "summary.json").unlink(missing_ok=True)  # of other settings
        save(self._evaluation(), self.results / "settings.json")
        flow = self._workflow("train", "evaluate", split=self.split, output_dir=str(self.results), **EVALUATION)
        flow.parser["refinement"] = [self.refinement] if self.refinement else []
        flow.parser["saving"] = {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": str(self.masks),
            "output_postfix": "",
            "output_dtype": "$np.uint8",
            "separate_folder": False,
            "resample": False,
            "print_log": False,
        }
        steps = "$[*@mask_steps[:-1], *@refinement, @mask_steps[-1], @saving]"  # @mask_steps[-1]: to the scan's grid
        flow.parser["validate#postprocessing#transforms"] = steps
        flow.initialize()
        flow.run()

    def _evaluation(self) -> dict[str, Any]:
        return {
            "evaluate": load(self._config("evaluate")) | EVALUATION,
            "inference": load(self._config("inference")),
            "refinement": self.refinement and type(self.refinement).__name__,
        }

    def fail(self, error: Exception) -> str:
        """Saves and returns one line about this run's failure."""
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        text = (str(cause) or type(cause).__name__).splitlines()[0]
        save(text, self.folder / "failed.json")
        return text

    def status(self) -> str:
        """The status for the tables; empty if the run is complete."""
        if self.summary() is not None:
            return ""
        failure = load(self.folder / "failed.json")
        if failure:
            return f"failed: {failure}"
        return "trained, not evaluated" if self.record() else "begun" if self.training.exists() else "not run"


def plain(content: Any) -> Any:
    """`content` as read back from JSON, to compare it with a file."""
    return json.loads(json.dumps(content))


def load(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def save(content: Any, path: Path) -> None:
    with atomic(path) as file:
        file.write((json.dumps(content, indent=1) + "\n").encode())


def differences(before: Any, now: Any, path: str = "") -> Iterator[str]:
    """The differences of two settings, as `path: before there, now here`."""
    if isinstance(before, list) and isinstance(now, list):
        before, now = ({str(i): item for i, item in enumerate(items)} for items in (before, now))
    if isinstance(before, dict) and isinstance(now, dict):
        for key in [*before, *(key for key in now if key not in before)]:
            yield from differences(before.get(key), now.get(key), f"{path}#{key}" if path else key)
    elif before != now:
        texts = [text if len(text := json.dumps(value)) < 60 else text[:57] + "..." for value in (before, now)]
        yield f"{path}: {texts[0]} there, {texts[1]} here"


def commit(folder: Path) -> str:
    """The repository's commit, with "+" if files differ from it; outside a repository the bundle's version."""
    try:
        ask = ["git", "-C", str(folder)]
        name = subprocess.run([*ask, "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True)
        changed = subprocess.run([*ask, "diff", "--quiet", "HEAD", "--", "."], capture_output=True)
        return name.stdout.strip() + ("+" if changed.returncode else "")
    except (OSError, subprocess.CalledProcessError):
        return "version " + load(folder / "configs" / "metadata.json")["version"]


def hardware() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    threads = torch.get_num_threads()
    return f"{names[0] if names else platform.machine()}, {threads} thread{'s' if threads > 1 else ''}"
