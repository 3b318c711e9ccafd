"""All runs of a comparison, one after the other, then its tables and figures."""

from __future__ import annotations

import gc
import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import scan_name
from ..networks import RAVNet
from ..training.datasets import training_scans
from . import figures, tables
from .curves import read_curves
from .published import LOSS_NETWORK
from .rivals import NETWORKS, REFINEMENTS
from .runs import Run

logger = logging.getLogger(__name__)


class Comparison:
    """Trains and evaluates networks alike, then writes tables and figures of all complete runs in `output_dir`.

    Runs are in `output_dir/runs/<network>/<loss>`. Several machines may each run some `networks`: copy their runs into
    one `output_dir`, and make tables and figures with `networks=[]`. A complete run is kept, an interrupted one
    resumes. Networks of one structure (U-Net and ULSM-Net) share a training: run them on the same machine.

    Args:
        bundle_root: the bundle's folder.
        dataset_dir: labelled scans, as train.json takes them.
        output_dir: made if missing.
        networks: names to run, of `rivals.NETWORKS` or `readings`; `None` for all of `NETWORKS`.
        budget: slices that each network sees in training, rounded to whole validation intervals.
        scale: of the networks' widths; 1 is each paper's.
        split: the part of the data to evaluate.
        seed: of weights, slices, augmentation and, if the data have none, the split.
        losses: name -> the config whose `loss` it is. All networks are trained with the first, RA V-Net with each.
        validations: number of validations in a training, evenly spaced; the best one's weights are kept.
        readings: name -> arguments of RAVNet for other readings of the paper's text, with a table of their own.
        settings: more keys of train.json that all runs share.

    Raises:
        SystemExit: with one line; before anything is run: an unknown name, no data, or a run in `output_dir` with other
            settings; at the end: the networks that failed.
    """

    def __init__(
        self,
        bundle_root: str,
        dataset_dir: str,
        output_dir: str,
        networks: Sequence[str] | None,
        budget: int,
        scale: float,
        split: str,
        seed: int,
        losses: Mapping[str, str],
        validations: int,
        readings: Mapping[str, Mapping[str, Any]],
        settings: Mapping[str, Any],
    ):
        self.bundle_root, self.output_dir = Path(bundle_root), Path(output_dir)
        self.dataset_dir, self.split, self.seed, self.scale = dataset_dir, split, seed, scale
        self.networks = list(NETWORKS) if networks is None else [networks] if isinstance(networks, str) else networks
        self.budget, self.validations = budget, validations
        self.losses, self.readings, self.settings = losses, readings, settings
        self.main = next(iter(losses))

    def run(self) -> None:
        try:
            scans, runs = self.prepare()
        except (ValueError, FileNotFoundError) as error:
            raise SystemExit(f"comparing: {error}") from None
        chosen = {key: run for key, run in runs.items() if key[0] in self.networks}
        failures = []
        for number, ((name, loss), run) in enumerate(chosen.items(), start=1):
            logger.info("%d of %d: %s, %s loss, %d slices", number, len(chosen), name, loss, run.slices)
            try:
                if not run.train():
                    logger.info("%s was interrupted; the same command resumes it", name)
                    return
                run.evaluate()
            except Exception as error:  # the other networks go on
                logger.exception("%s failed", name)
                failures.append(f"{name} ({run.fail(error)})")
            gc.collect()  # a workflow has reference cycles: free its memory before the next one
        self.write(scans, runs)
        if failures:
            raise SystemExit(f"comparing: failed: {'; '.join(failures)}. Tables and figures hold the others.")

    def prepare(self) -> tuple[dict[str, list[dict[str, str]]], dict[tuple[str, str], Run]]:
        """The scans and all runs by (network, loss), checked."""
        names = [*NETWORKS, *self.readings]
        unknown = [name for name in self.networks if name not in names]
        if unknown:
            raise ValueError(f"no network is named {', '.join(unknown)}: there are {', '.join(names)}.")
        scans = training_scans(self.dataset_dir, seed=self.seed)
        if not scans.get(self.split):
            raise ValueError(
                f"the data have no part {self.split!r}: there are {', '.join(k for k in scans if scans[k])}."
            )
        pairs = [(name, self.main) for name in names]
        pairs += [(LOSS_NETWORK, loss) for loss in self.losses if loss != self.main]
        runs = {(name, loss): self.plan(name, loss, scans) for name, loss in pairs}
        for run in runs.values():
            run.check()
        return scans, runs

    def plan(self, name: str, loss: str, scans: Mapping[str, list[dict[str, str]]]) -> Run:
        if name in self.readings:
            twin, full = name, inspect.signature(RAVNet).parameters["width"].default
            network = {"_target_": "scripts.networks.RAVNet", "width": int(full * self.scale), **self.readings[name]}
        else:  # networks of one structure are trained once
            twin = next(other for other in NETWORKS if NETWORKS[other] is NETWORKS[name])
            network = {"_target_": "scripts.paper.rivals.build", "name": twin, "scale": self.scale}
        overrides = {
            **self.settings,
            "bundle_root": str(self.bundle_root),
            "dataset_dir": str(self.dataset_dir),
            "cache_dir": str(self.output_dir / "cache"),
            "seed": self.seed,
            "network_def": {**network, "_requires_": "@code_path"},
            "loss": self.config(self.losses[loss])["loss"],
        }
        shared = {**self.config("train"), **self.settings}
        epochs = max(1, self.budget // shared["slices_per_epoch"])
        interval = max(1, epochs // self.validations)
        epochs -= epochs % interval  # the last epoch is validated too
        warmup = min(shared["lr_scheduler"]["warmup_steps"], epochs // 10)
        overrides |= {"max_epochs": epochs, "val_interval": interval, "lr_scheduler#warmup_steps": warmup}
        own, twins = (self.output_dir / "runs" / str(part).replace(" ", "_") / loss for part in (name, twin))
        refinement = REFINEMENTS[name](keys="pred", image_key="image") if name in REFINEMENTS else None
        names = {part: [scan_name(item["image"]) for item in items] for part, items in scans.items()}
        return Run(own, twins, self.bundle_root, overrides, names, self.split, refinement)

    def config(self, name: str) -> dict[str, Any]:
        return json.loads((self.bundle_root / "configs" / f"{name}.json").read_text())

    def command(self) -> str:
        """The command that repeats the whole comparison."""
        keys = ("budget", "scale", "split", "seed", "validations", "settings")
        words = [f'--{key} "{getattr(self, key)}"' for key in keys]
        start = "python -m monai.bundle run comparing --config_file configs/compare.json"
        return " ".join([start, "--dataset_dir DATA --output_dir OUT", *words])

    def write(self, scans: Mapping[str, list[dict[str, str]]], runs: Mapping[tuple[str, str], Run]) -> None:
        """Writes tables and figures of the complete runs; the tables give the status of the others."""
        tables.write(self.output_dir, runs, list(self.losses), self.command())
        trained = {name: run for (name, loss), run in runs.items() if loss == self.main and run.record()}
        curves = {name: read_curves(run) for name, run in trained.items() if run.training == run.folder}
        masks = {name: run.masks for (name, loss), run in runs.items() if loss == self.main and run.summary()}
        level, width = (next(iter(runs.values())).settings["train"][f"window_{part}"] for part in ("level", "width"))
        figures.write(self.output_dir, scans[self.split], masks, curves, (level - width / 2, level + width / 2))
        logger.info("wrote tables and figures into %s", self.output_dir)
