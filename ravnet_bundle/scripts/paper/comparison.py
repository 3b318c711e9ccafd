"""All runs of a comparison, one after the other, then its tables and figures."""

from __future__ import annotations

import csv
import gc
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import DataError, atomic, csv_text, scan_name
from ..training.datasets import training_scans
from . import figures, tables
from .rivals import NETWORKS, REFINEMENTS
from .runs import Key, Run

logger = logging.getLogger(__name__)

EXPERIMENT = ("networks", "folds", "seeds")
VARIANT = ("of", "network", "budget", "recipe", "settings")


class Comparison:
    """Trains and evaluates networks alike, in a cross-validation by patient, then writes tables and figures.

    `output_dir/runs.csv` has a row per complete run, and `output_dir/cases.csv` a row per scan of it. A run that they
    hold is not run again, also if the runs' folders in `output_dir/runs` are gone. An interrupted run resumes. Several
    processes may share an `output_dir`, best each with other `networks`: for a run of another process they wait.
    Networks of one structure (U-Net and ULSM-Net) share a training.

    Args:
        bundle_root: the bundle's folder.
        dataset_dir: labelled scans, as train.json takes them.
        output_dir: made if missing.
        networks: names to run, of `rivals.NETWORKS` or `variants`; `None` for all of `experiments`.
        budget: slices that each network sees in training, rounded down to whole validation intervals.
        folds: number of the cross-validation's folds.
        scale: of the networks' widths; 1 is each paper's.
        prior: share of liver with which each network's bias starts, see `rivals.build`.
        experiments: in order, `{"networks": names, "folds": numbers (all), "seeds": numbers ([0])}`.
        variants: name -> any of "of" (a network; the name itself), "network" (its arguments), "budget", "recipe",
            "settings": what differs.
        recipe: configs that are laid over train.json.
        settings: more keys of train.json that all runs share.

    Raises:
        SystemExit: with one line; before anything is run: an unknown name or key, no such recipe or fold, a budget of
            less than an epoch, no data, or a run in `output_dir` with other settings; at the end: the networks that
            failed.
    """

    def __init__(
        self,
        bundle_root: str,
        dataset_dir: str,
        output_dir: str,
        networks: Sequence[str] | None,
        budget: int,
        folds: int,
        scale: float,
        prior: float | None,
        experiments: Sequence[Mapping[str, Any]],
        variants: Mapping[str, Mapping[str, Any]],
        recipe: Sequence[str],
        settings: Mapping[str, Any],
    ):
        self.bundle_root, self.output_dir, self.dataset_dir = Path(bundle_root), Path(output_dir), dataset_dir
        self.networks = [networks] if isinstance(networks, str) else networks
        self.budget, self.folds, self.scale, self.prior = budget, folds, scale, prior
        self.experiments, self.variants, self.recipe, self.settings = experiments, variants, recipe, settings

    def run(self) -> None:
        try:
            runs = self.prepare()
        except (ValueError, FileNotFoundError) as error:
            raise SystemExit(f"comparing: {error}") from None
        todo = [run for run in runs if self.networks is None or run.key.network in self.networks]
        done, failures = self.complete(runs), {}
        for number, run in enumerate(todo, start=1):
            if run.key in done:
                continue
            logger.info("%d of %d: %s, fold %d, seed %d", number, len(todo), *run.key)
            try:
                if not run.run():
                    logger.info("%s was interrupted; the same command resumes it", run.key.network)
                    return
            except Exception as error:  # the other networks go on
                logger.exception("%s failed", run.key.network)
                failures[run.key.network] = run.fail(error)
            gc.collect()  # a workflow has reference cycles: free its memory before the next one
            done = self.complete(runs)
        self.write(runs)
        if failures:
            said = "; ".join(f"{name} ({text})" for name, text in failures.items())
            raise SystemExit(f"comparing: failed: {said}. Tables and figures hold the others.")

    def keys(self) -> list[Key]:
        """All runs of `experiments`, each once, in order."""
        found = [
            Key(name, fold, seed)
            for part in self.experiments
            for seed in part.get("seeds", [0])
            for fold in part.get("folds", range(self.folds))
            for name in part["networks"]
        ]
        return list(dict.fromkeys(found))

    def prepare(self) -> list[Run]:
        """All runs, checked."""
        for name, value in (("budget", self.budget), ("folds", self.folds)):
            if not isinstance(value, int):
                raise ValueError(f"{name} must be a whole number, got {value!r}.")
        if missing := [name for name in ("slices_per_epoch", "val_interval") if name not in self.settings]:
            raise ValueError(f"settings lacks {' and '.join(missing)}.")
        refuse("experiments", "key", (key for part in self.experiments for key in part), EXPERIMENT)
        refuse("variants", "key", (key for variant in self.variants.values() for key in variant), VARIANT)
        refuse("variants", "network", (of.get("of", name) for name, of in self.variants.items()), list(NETWORKS))
        keys = self.keys()
        if not keys:
            raise ValueError("experiments lists no run.")
        names = list(dict.fromkeys(key.network for key in keys))
        refuse("experiments", "network", names, list({**NETWORKS, **self.variants}))
        refuse("networks", "network", self.networks or (), names)
        splits = {fold: self.split(fold) for fold in {key.fold for key in keys}}
        runs = [self.plan(key, splits[key.fold]) for key in keys]
        rows = {key_of(row): row for row in read(self.output_dir / "runs.csv")}
        for run in runs:
            run.check()
            if (row := rows.get(run.key)) and int(row["slices"]) != run.slices:
                raise ValueError(
                    f"{self.output_dir / 'runs.csv'}: {run.key.network} was made with {row['slices']} slices, not "
                    f"{run.slices}: name another output_dir, or delete that row."
                )
        return runs

    def split(self, fold: int) -> dict[str, list[str]]:
        try:
            parts = training_scans(self.dataset_dir, fold=fold, folds=self.folds)
        except DataError as error:
            raise ValueError(str(error)) from None
        return {part: [scan_name(item["image"]) for item in items] for part, items in parts.items()}

    def plan(self, key: Key, scans: Mapping[str, list[str]]) -> Run:
        variant = self.variants.get(key.network, {})
        name = variant.get("of", key.network)
        recipe = variant.get("recipe", self.recipe)
        # networks of one structure are trained once
        twin = next(other for other in NETWORKS if NETWORKS[other] is NETWORKS[name])
        network = {"name": name, "scale": self.scale, "prior": self.prior, **variant.get("network", {})}
        overrides = {
            **self.settings,
            **variant.get("settings", {}),
            "bundle_root": str(self.bundle_root),
            "dataset_dir": str(self.dataset_dir),
            "cache_dir": str(self.output_dir / "cache"),
            "seed": key.seed,
            "datasplit#seed": 0,
            "datasplit#fold": key.fold,
            "datasplit#folds": self.folds,
            "network_def": {
                "_target_": "scripts.paper.rivals.build",
                "_requires_": "@code_path",
                **network,
                "name": twin,
            },
        }
        interval = self.settings["val_interval"]
        budget, epoch = variant.get("budget", self.budget), self.settings["slices_per_epoch"]
        epochs = budget // epoch
        if epochs < 1:
            raise ValueError(f"{key.network}: budget {budget} is less than an epoch of {epoch} slices.")
        interval = min(interval, epochs)
        epochs -= epochs % interval  # the last epoch is validated too
        overrides |= {"max_epochs": epochs, "val_interval": interval, "lr_scheduler#warmup_steps": max(1, epochs // 25)}
        refinement = REFINEMENTS[name](keys="pred", image_key="image") if name in REFINEMENTS else None
        return Run(
            key,
            self.output_dir / "runs",
            key if key.network in self.variants else Key(twin, key.fold, key.seed),
            self.bundle_root,
            [recipe] if isinstance(recipe, str) else recipe,
            overrides,
            scans,
            refinement,
        )

    def complete(self, runs: Sequence[Run]) -> dict[Key, dict[str, Any]]:
        """The complete runs' rows, from their folders and from runs.csv."""
        rows = {key_of(row): row for row in read(self.output_dir / "runs.csv")}
        return rows | {run.key: plain_row(row) for run in runs if (row := run.row())}

    def cases(self, runs: Sequence[Run]) -> list[dict[str, str]]:
        """All complete runs' rows by scan, from their folders and from cases.csv."""
        fresh = {run.key: run.cases() for run in runs if run.row()}
        kept = [row for row in read(self.output_dir / "cases.csv") if key_of(row) not in fresh]
        return kept + [row for rows in fresh.values() for row in rows]

    def write(self, runs: Sequence[Run]) -> None:
        """Writes runs.csv, cases.csv, tables and figures of the complete runs."""
        order = {run.key: number for number, run in enumerate(runs)}
        rows = sorted(self.complete(runs).values(), key=lambda row: order.get(key_of(row), len(order)))
        cases = sorted(self.cases(runs), key=lambda row: (order.get(key_of(row), len(order)), row["name"]))
        failures = {run.key.network: text for run in runs if (text := run.failure())}
        texts = {"runs.csv": csv_text(rows), "cases.csv": csv_text(cases)}
        texts["tables.md"] = tables.markdown(rows, cases, self.folds, self.variants, failures)
        for name, text in texts.items():
            with atomic(self.output_dir / name) as file:
                file.write(text.encode())
        items = training_scans(self.dataset_dir, fold=0, folds=self.folds)["test"]
        masks = {run.key.network: run.masks for run in runs if self.shown(run)}
        level, width = (runs[0].settings["train"][f"window_{part}"] for part in ("level", "width"))
        figures.write(self.output_dir, rows, cases, items, masks, (level - width / 2, level + width / 2))
        logger.info("wrote tables and figures into %s", self.output_dir)

    def shown(self, run: Run) -> bool:
        """Whether its contours are drawn: a network's first run, if the masks are there."""
        return run.key.network in NETWORKS and (run.key.fold, run.key.seed) == (0, 0) and run.row() is not None


def refuse(where: str, what: str, names: Iterable[str], known: Sequence[str]) -> None:
    if unknown := [name for name in dict.fromkeys(names) if name not in known]:
        raise ValueError(f"{where}: no {what} is named {', '.join(unknown)}: there are {', '.join(known)}.")


def read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def key_of(row: Mapping[str, Any]) -> Key:
    return Key(row["network"], int(row["fold"]), int(row["seed"]))


def plain_row(row: Mapping[str, Any]) -> dict[str, str]:
    """As read back from CSV; the validations are separated by spaces."""
    return {name: " ".join(map(str, v)) if isinstance(v, list) else str(v) for name, v in row.items()}
