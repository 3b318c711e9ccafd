"""Metrics of an evaluation in two protocols with separate tables: the paper's, and that of the LiTS challenge.

Both compare binary masks, liver (label > 0) and the rest, on the untouched label's own grid. If a mask is empty:

- no liver in the reference: all except accuracy and volumes is nan, as in monai.metrics;
- liver in the reference, none in the prediction: precision, ASSD and HD95 are nan; Dice, DSC, JSC and NSD are 0, VOE is
  1, RVD is -1.

Such cases are counted. Every mean leaves nan out and states its number of values.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import ignite.distributed as idist
import nibabel as nib
import numpy as np
import torch
import torch.nn.functional as F
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines import IterationEvents
from monai.metrics import (
    compute_average_surface_distance,
    compute_confusion_matrix_metric,
    compute_hausdorff_distance,
    get_confusion_matrix,
    get_mask_edges,
    get_surface_distance,
)

from ..files import atomic, csv_text, scan_name
from ..geometry import axial_axis, bounding_box, spacing_of

logger = logging.getLogger(__name__)

PAPER = {"acc": "accuracy", "pre": "precision", "dsc": "f1 score", "jsc": "threat score"}  # name -> MONAI's name
LITS = ("dice", "voe", "rvd", "assd_mm", "hd95_mm", "nsd_3mm")

PAPER_PROTOCOL = (
    "Lee et al. 2021: accuracy, precision, Dice (DSC) and Jaccard (JSC) of pixels, 0 to 1. "
    "'pooled': the pixels of all slices of all cases, counted together. 'liver_slices': of each axial slice that shows "
    "liver in the reference, then averaged over these slices of all cases. The paper does not say which it uses."
)
LITS_PROTOCOL = (
    "LiTS challenge (arXiv:1901.04056): of each case, then averaged over the cases; tumour counts as liver. "
    "dice; voe = 1 - Jaccard; rvd = (prediction - reference) / reference, positive if too much was found; "
    "assd_mm: average symmetric surface distance; hd95_mm: the greater of both directed 95th percentiles of it; "
    "nsd_3mm: the part of both surfaces' area within 3 mm of the other (not in LiTS, but usual). "
    "Millimetres are from the label's affine. dice_global: the voxels of all cases, counted together."
)


class Case(NamedTuple):
    """One case's results.

    Attributes:
        name: the image's file name without the extension.
        slices: pixels of each axial slice, (slices, 4): true positive, false positive, true negative, false negative.
        lits: the metrics of LITS, volume_ml (prediction), reference_ml, outside_ml (prediction in slices without any).
    """

    name: str
    slices: torch.Tensor
    lits: dict[str, float]


def paper_counts(pred: torch.Tensor, label: torch.Tensor, axis: int = -1) -> torch.Tensor:
    """Pixels of each slice: masks (X, Y, Z) -> float64 (slices, 4), true and false positive, true and false negative.

    Args:
        pred, label: boolean.
        axis: of the slices.
    """
    parts = [mask.to(torch.uint8).movedim(axis, 0).unsqueeze(1).split(32) for mask in (pred, label)]
    return torch.cat([get_confusion_matrix(p, r) for p, r in zip(*parts)]).squeeze(1).double()


def paper_metrics(counts: torch.Tensor) -> dict[str, torch.Tensor]:
    """ACC, PRE, DSC and JSC of each row of `paper_counts`: (n, 4) -> name: (n,), 0 to 1 or nan."""
    scores = {name: compute_confusion_matrix_metric(metric, counts) for name, metric in PAPER.items()}
    liver = counts[:, 0] + counts[:, 3] > 0
    return {name: score if name == "acc" else torch.where(liver, score, math.nan) for name, score in scores.items()}


def pooled(counts: torch.Tensor) -> dict[str, float]:
    """ACC, PRE, DSC and JSC of the pixels of all rows, counted together."""
    return {name: float(value) for name, value in paper_metrics(counts.sum(0, keepdim=True)).items()}


def liver_bearing(counts: torch.Tensor) -> torch.Tensor:
    """The rows of the slices that show liver in the reference."""
    return counts[counts[:, 0] + counts[:, 3] > 0]


def lits_metrics(pred: torch.Tensor, label: torch.Tensor, spacing: Sequence[float]) -> dict[str, float]:
    """LITS and both volumes in ml of one case: masks (X, Y, Z), boolean, voxels of `spacing` mm.

    Surfaces are compared within the bounding box of both masks, which changes no distance.
    """
    box = bounding_box((pred | label).numpy()) or ()
    pred, label = pred[box], label[box]
    both, found, real = int((pred & label).sum()), int(pred.sum()), int(label.sum())
    millilitres = math.prod(spacing) / 1000
    result = dict.fromkeys(LITS, math.nan) | {"volume_ml": found * millilitres, "reference_ml": real * millilitres}
    if not real:
        return result
    overlap = {"dice": 2 * both / (found + real), "voe": 1 - both / (found + real - both), "rvd": (found - real) / real}
    result |= overlap | {"nsd_3mm": 0.0}
    if found:
        masks, settings = (pred[None, None], label[None, None]), {"include_background": True, "spacing": tuple(spacing)}
        result |= {
            "assd_mm": float(compute_average_surface_distance(*masks, symmetric=True, **settings)),
            "hd95_mm": float(compute_hausdorff_distance(*masks, percentile=95, **settings)),
            "nsd_3mm": surface_dice(pred, label, spacing, tolerance=3.0),
        }
    return result


def surface_dice(pred: torch.Tensor, label: torch.Tensor, spacing: Sequence[float], tolerance: float) -> float:
    """The part of both surfaces' area within `tolerance` mm of the other: masks (X, Y, Z), boolean, not empty -> 0..1.

    Equals monai's `compute_surface_dice(use_subvoxels=True)`, areas by DeepMind's table for 2 x 2 x 2 voxels, but works
    slab by slab: monai's takes 16 GB where stray voxels spread over 512 x 512 x 400.
    """
    masks = F.pad(torch.stack((pred, label)), (1,) * 6)
    edges: tuple[list, list] = ([], [])
    areas: tuple[list, list] = ([], [])
    for x in range(0, masks.shape[1] - 1, 32):
        found = get_mask_edges(*masks[:, x : x + 33], crop=False, spacing=tuple(spacing))
        for i in (0, 1):
            edges[i].append(found[i])
            areas[i].append(found[i + 2][found[i]].double())
    ours, theirs = (torch.cat(parts) for parts in edges)
    distances = [get_surface_distance(*pair, spacing=spacing) for pair in ((ours, theirs), (theirs, ours))]
    weights = [torch.cat(parts) for parts in areas]
    near = sum(weight[distance <= tolerance].sum() for weight, distance in zip(weights, distances))
    return float(near / sum(weight.sum() for weight in weights))


def check_same_grid(pred: MetaTensor, label: MetaTensor) -> None:
    """Raises `ValueError`, with both names, unless a prediction (on its image's grid) and a label are on one grid.

    Shapes and the files' own axes must agree (`RepairHeaderd` gives every label its image's affine). An identity
    affine, a known fault of LiTS, is ignored.
    """
    names = [str(mask.meta.get("filename_or_obj", "")) for mask in (pred, label)]
    shapes = [tuple(mask.shape[1:]) for mask in (pred, label)]
    stored = [np.asarray(mask.meta.get("original_affine", mask.affine.cpu())) for mask in (pred, label)]
    axes = ["".join(map(str, nib.aff2axcodes(affine))) for affine in stored]
    silent = any(np.allclose(affine[:3, :3], np.eye(3)) for affine in stored)
    if shapes[0] != shapes[1] or (axes[0] != axes[1] and not silent):
        raise ValueError(
            f"label {names[1]}, {shapes[1]} with axes {axes[1]}, is not on the grid of image {names[0]}, {shapes[0]} "
            f"with axes {axes[0]}: resample the label to the image's grid."
        )


def evaluate_case(pred: MetaTensor, label: MetaTensor) -> Case:
    """Compares a prediction with its label, both (1, X, Y, Z) with their affines.

    Raises:
        ValueError: they are not on one grid.
    """
    check_same_grid(pred, label)
    affine = label.affine.cpu().numpy()
    found, real = (mask.as_tensor()[0].cpu() > 0.5 for mask in (pred, label))
    spacing, slices = spacing_of(affine).tolist(), paper_counts(found, real, axis=axial_axis(affine))
    outside = slices[slices[:, 0] + slices[:, 3] == 0, 1].sum() * math.prod(spacing) / 1000
    lits = {**lits_metrics(found, real, spacing=spacing), "outside_ml": float(outside)}
    return Case(scan_name(pred.meta["filename_or_obj"]), slices, lits)


def mean(values: Sequence[float] | torch.Tensor) -> tuple[float, int]:
    """The mean of the values that are not nan (nan without any), and their number."""
    values = torch.as_tensor(values, dtype=torch.float64)
    return float(values.nanmean()), int((~values.isnan()).sum())


def paper_row(case: Case) -> dict[str, str | int | float]:
    """One case in the paper's table: its pixels pooled, and the mean over its slices with liver."""
    slices = paper_metrics(liver_bearing(case.slices))
    return {
        "name": case.name,
        "slices": len(case.slices),
        "liver_slices": len(slices["acc"]),
        **{f"pooled_{name}": value for name, value in pooled(case.slices).items()},
        **{f"liver_slices_{name}": mean(values)[0] for name, values in slices.items()},
    }


def summarize(cases: Sequence[Case], split: str) -> dict:
    """Both protocols over all cases, as in `summary.json` (there nan is null)."""
    slices = torch.cat([case.slices for case in cases])
    liver = paper_metrics(liver_bearing(slices))
    by_case = {name: mean([case.lits[name] for case in cases]) for name in LITS}
    return {
        "split": split,
        "cases": len(cases),
        "empty_predictions": sum(case.lits["volume_ml"] == 0 for case in cases),
        "empty_references": sum(case.lits["reference_ml"] == 0 for case in cases),
        "paper": {
            "protocol": PAPER_PROTOCOL,
            "pooled": pooled(slices),
            "liver_slices": {name: dict(zip(("mean", "slices"), mean(values))) for name, values in liver.items()},
        },
        "lits": {
            "protocol": LITS_PROTOCOL,
            "dice_global": pooled(slices)["dsc"],
            "per_case": {name: {"mean": value, "cases": number} for name, (value, number) in by_case.items()},
        },
    }


def headline(summary: Mapping) -> dict[str, float]:
    """A summary's figures with the protocol in their names, for `engine.state.metrics`."""
    paper, lits = summary["paper"], summary["lits"]
    return {
        **{f"paper_pooled_{name}": value for name, value in paper["pooled"].items()},
        **{f"paper_liver_slices_{name}": value["mean"] for name, value in paper["liver_slices"].items()},
        "lits_dice_global": lits["dice_global"],
        **{f"lits_{name}": value["mean"] for name, value in lits["per_case"].items()},
        "empty_predictions": summary["empty_predictions"],
        "empty_references": summary["empty_references"],
    }


class CaseTables:
    """Handler of an evaluator: writes `paper.csv` and `lits.csv`, one row per case, and `summary.json`.

    It takes `pred` and `label`, MetaTensors (1, X, Y, Z), from the evaluator's postprocessed output before any metric
    does, so that a label on another grid gives a clear error. At the end it writes the files and puts `headline` into
    `engine.state.metrics`: list it before the handlers that print them. With several ranks, rank 0 writes the
    cases of all, each once.

    Args:
        output_dir: made if missing.
        split: the part of the data, for the summary.

    Raises:
        ValueError: during the evaluation, if a label is not on its image's grid.
    """

    def __init__(self, output_dir: str, split: str):
        self.folder, self.split = Path(output_dir), split
        self.cases: dict[str, Case] = {}

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_STARTED, lambda: self.cases.clear())
        engine.add_event_handler(IterationEvents.MODEL_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def collect(self, engine: Engine) -> None:
        for item in engine.state.output:
            case = evaluate_case(item["pred"], item["label"])
            self.cases[str(item["pred"].meta["filename_or_obj"])] = case
            logger.info("%s: %s", case.name, ", ".join(f"{name} {value:.4g}" for name, value in case.lits.items()))

    def write(self, engine: Engine) -> None:
        gathered = idist.all_gather(self.cases) if idist.get_world_size() > 1 else [self.cases]
        by_path = {path: case for part in gathered for path, case in part.items()}
        cases = [by_path[path] for path in sorted(by_path)]
        summary = summarize(cases, self.split)
        engine.state.metrics.update(headline(summary))
        if idist.get_rank() == 0:
            self.save("paper.csv", table([paper_row(case) for case in cases]))
            self.save("lits.csv", table([{"name": case.name, **case.lits} for case in cases]))
            plain = json.loads(json.dumps(summary), parse_constant=lambda nan: None)  # JSON knows no nan
            self.save("summary.json", json.dumps(plain, indent=2) + "\n")
            logger.info("wrote paper.csv, lits.csv and summary.json into %s", self.folder)

    def save(self, name: str, text: str) -> None:
        with atomic(self.folder / name) as file:
            file.write(text.encode())


def table(rows: Sequence[Mapping[str, str | int | float]]) -> str:
    """Rows as CSV; numbers with six significant digits."""
    return csv_text([{name: f"{x:.6g}" if isinstance(x, float) else x for name, x in row.items()} for row in rows])
