"""One network's training and evaluation by train.json and evaluate.json with a few overrides, in one folder."""

from __future__ import annotations

import csv
import json
import logging
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from ..batch.claims import Claim
from ..files import atomic
from ..inference.axial import has_fast_bfloat16

logger = logging.getLogger(__name__)

# Keys that may differ between two machines of one comparison: they do not change the result.
PLACES = ("bundle_root", "dataset_dir", "output_dir", "ckpt_dir", "device", "cache_dir", "save_interval")

# The network is compared: on every slice, with the largest component, on the scan's grid; without the product's steps.
STEPS = [
    {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
    {"_target_": "scripts.inference.transforms.LargestComponentd", "_requires_": "@code_path", "keys": "pred"},
    {"_target_": "scripts.grid.FromGridd", "_requires_": "@code_path", "keys": "pred"},
]


class Key(NamedTuple):
    """The name of a run."""

    network: str
    fold: int
    seed: int

    def folder(self) -> Path:
        return Path(self.network.replace(" ", "_"), f"fold_{self.fold}", f"seed_{self.seed}")


class Run:
    """One network's folder: settings.json, the training's files, record.json when it has ended, `test/`, run.json.

    Each step writes a file when it is done, so that a run resumes after any kill.

    Args:
        key: of the run.
        folder: of all runs.
        training: key of the run that did the training, or its own key.
        bundle_root: folder with `configs/`.
        recipe: configs that are laid over train.json.
        overrides: id -> raw value, over these.
        scans: part of the data -> names of its scans.
        refinement: a transform of the mask `pred` on the network's grid, before it goes back to the scan's.
    """

    def __init__(
        self,
        key: Key,
        folder: Path,
        training: Key,
        bundle_root: Path,
        recipe: Sequence[str],
        overrides: Mapping[str, Any],
        scans: Mapping[str, list[str]],
        refinement: Callable | None = None,
    ):
        self.key, self.bundle_root, self.refinement = key, bundle_root, refinement
        self.folder, self.training = folder / key.folder(), folder / training.folder()
        self.results = self.folder / "test"
        self.masks = self.results / "masks"
        self.overrides, self.files = (
            dict(overrides),
            [bundle_root / "configs" / f"{n}.json" for n in ("train", *recipe)],
        )
        if missing := [path.name for path in self.files if not path.exists()]:
            raise ValueError(f"{key.network}: recipe: there is no {', '.join(missing)} in {bundle_root / 'configs'}.")
        parser = ConfigParser(ConfigParser.load_config_files(self.files))
        if "warmup_steps" not in parser["lr_scheduler"]:  # paper.json's rate is constant
            self.overrides.pop("lr_scheduler#warmup_steps", None)
        parser.update(self.overrides)
        train = {key: value for key, value in parser.config.items() if key not in PLACES}
        self.settings = plain({"train": train, "scans": scans})
        self.epochs = parser["max_epochs"]
        self.slices = self.epochs * parser["slices_per_epoch"]

    def _workflow(self, *configs: str, **more: Any) -> ConfigWorkflow:
        files = [str(path) for path in (*self.files, *(self.bundle_root / "configs" / f"{n}.json" for n in configs))]
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

    def run(self) -> bool:
        """Trains, evaluates, and writes run.json; false if SIGTERM ended the training early.

        Waits while another process uses the same training.
        """
        with Claim.alone(self.training, "run"):
            if self.row():
                return True
            if not self.train():
                return False
            if not (self.results / "summary.json").exists():
                self.evaluate()
            save({**self.key._asdict(), **load(self.training / "record.json")}, self.folder / "run.json")
            return True

    def train(self) -> bool:
        """Trains or resumes; false if SIGTERM ended it early."""
        self.check()
        (self.folder / "failed.json").unlink(missing_ok=True)
        state, record = self.training / "resume.pt", self.training / "record.json"
        if not record.exists():
            save(self.settings, self.training / "settings.json")
            flow = self._workflow(output_dir=str(self.training))
            flow.initialize()
            flow.run()
            if not state.exists() or torch.load(state, weights_only=True, mmap=True)["epoch"] < self.epochs:
                return False
            network = flow.parser.get_parsed_content("network")
            loss, size = flow.parser.get_parsed_content("loss"), flow.parser["patch_size"]
            save(
                {
                    "slices": self.slices,
                    "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
                    **times(network, loss, size, flow.parser["batch_size"]),
                    "validation": validations(self.training),
                    "commit": commit(self.bundle_root),
                    "hardware": hardware(),
                },
                record,
            )
        state.unlink(missing_ok=True)  # four times the weights, and no longer needed
        return True

    def evaluate(self) -> None:
        """Writes the files of `CaseTables` and the masks of the test part's scans."""
        steps = "$[*@network_steps[:-1], *@refinement, @network_steps[-1], @saving]"
        flow = self._workflow(
            "evaluate",
            output_dir=str(self.results),
            **{"validate#inferer": "@train#inferer", "mask_steps": steps},
        )
        flow.parser["network_steps"] = STEPS
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
        flow.initialize()
        flow.run()

    def row(self) -> dict[str, Any] | None:
        """Facts about a complete run: `Key`, slices, parameters, times, validation Dice, commit, hardware."""
        return load(self.folder / "run.json")

    def cases(self) -> list[dict[str, str]]:
        """A row per scan of a complete run: `Key`, and the figures of lits.csv and paper.csv."""
        tables = []
        for name in ("lits.csv", "paper.csv"):
            with open(self.results / name, newline="") as file:
                tables.append({row["name"]: row for row in csv.DictReader(file)})
        key = {name: str(value) for name, value in self.key._asdict().items()}
        return [{**key, **row, **tables[1][name]} for name, row in tables[0].items()]

    def fail(self, error: Exception) -> str:
        """Saves and returns one line about this run's failure."""
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        text = (str(cause) or type(cause).__name__).splitlines()[0]
        save(text, self.folder / "failed.json")
        return text

    def failure(self) -> str | None:
        return load(self.folder / "failed.json")


def times(network: torch.nn.Module, loss: Callable, size: Sequence[int], batch: int) -> dict[str, float]:
    """Milliseconds per slice of `size`, the shortest of five batches: of a training step and of a forward pass."""
    parameter = next(network.parameters())
    x = torch.rand(batch, 1, *size, device=parameter.device).to(memory_format=torch.channels_last)

    def shortest(step: Callable[[], Any]) -> float:
        taken = []
        for _ in range(6):
            start = time.perf_counter()
            step()
            if x.is_cuda:
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - start)
        return round(1000 * min(taken[1:]) / batch, 3)

    def forward() -> torch.Tensor:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=has_fast_bfloat16(x.device)):
            return network(x)

    step = shortest(lambda: loss(forward().float(), (x > 0.5).float()).backward())
    with torch.inference_mode():
        return {"step_ms": step, "forward_ms": shortest(forward)}


def validations(folder: Path) -> list[float]:
    """The validation's Dice, in order, from the TensorBoard files that train.json writes."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it logs each file
    log = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()  # 0: all
    found = {event.step: round(event.value, 4) for event in log.Scalars("val_dice")}  # a repeated step counts once
    return [found[step] for step in sorted(found)]


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
