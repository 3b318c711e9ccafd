"""`ravnet`: the command line. What it needs of MONAI and PyTorch is imported when a study is to be done, not before."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import warnings
from pathlib import Path

from .claims import Claim
from .shards import Shard

VERDICTS = {"ok": "ok", "review": "REVIEW", "reject": "REJECT"}


class Usage(Exception):
    """A command that cannot be meant; exit code 2."""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="ravnet", description="Liver segmentation in CT with RA V-Net. For research use only.", allow_abbrev=False
    )
    top.add_argument("--version", action="store_true", help="print versions and the weights' sha256")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    p = commands.add_parser(
        "segment",
        help="CT in; mask, volume, picture, report and verdict out",
        description="Writes OUT/NAME/ for each CT (mask, measures, report.html, preview.png) and OUT/measures.csv.",
        epilog="Exit code: 0 all done, 1 some failed, 2 usage, 130 interrupted. For research use only.",
        allow_abbrev=False,
    )
    p.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="NIfTI, NRRD, MetaImage, DICOM file or folder, zip, folder, .txt list",
    )
    p.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for the results")
    p.add_argument(
        "--series", metavar="N|largest", help="the DICOM series by its number, or the largest; by default each"
    )
    p.add_argument("--seg", action="store_true", help="write DICOM SEG too (DICOM input; holds the patient's data)")
    p.add_argument("--rtstruct", action="store_true", help="write RTSTRUCT too (DICOM input; holds the patient's data)")
    p.add_argument("--probabilities", action="store_true", help="write the network's probabilities too")
    p.add_argument("--native", action="store_true", default=None, help="scans without contrast agent: steatosis hint")
    p.add_argument("--height", type=float, metavar="CM", help="the patient's, for the standard liver volume")
    p.add_argument("--weight", type=float, metavar="KG", help="the patient's")
    p.add_argument("--bsa", type=float, metavar="M2", help="body surface, in place of height and weight")
    p.add_argument(
        "--anonymous",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="keep names, ids, dates, UIDs out of reports and file names (on)",
    )
    p.add_argument("--resume", action="store_true", help="keep results that are complete and unharmed")
    p.add_argument("--fast", action="store_true", help="larger pixels: quicker, a little coarser")
    p.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1; by default the GPU if there is one")
    p.add_argument("--threads", type=int, metavar="N", help="CPU threads; by default all cores")
    p.add_argument("--shard", metavar="I/N", default="0/1", help="do part I of N of the studies; I counts from 0")
    p.add_argument(
        "--workers",
        type=_workers,
        metavar="N|ADDRESS",
        help="processes to start, or a Dask scheduler (tcp://HOST:8786)",
    )
    p.add_argument("--dry-run", action="store_true", help="read and check the inputs, and stop")
    p.add_argument("--json", action="store_true", help="print the outcome as JSON")
    volume = p.add_mutually_exclusive_group()
    volume.add_argument("--quiet", action="store_true", help="print failures alone")
    volume.add_argument("--verbose", action="store_true", help="say what is done, and show tracebacks")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line, and returns its exit code."""
    top = parser()
    options = top.parse_args(arguments)
    if not options.version and options.command is None:
        top.print_help()
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    _quieten(getattr(options, "verbose", False))
    try:
        return _version() if options.version else _segment(options)
    except Usage as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what is complete stays, --resume does the rest", file=sys.stderr)
        return 130


def _workers(text: str) -> int | str:
    if not text.isdigit():
        return text
    if not int(text):
        raise argparse.ArgumentTypeError("give a number from 1")
    return int(text)


def _interrupt(*_: object) -> None:
    if module := sys.modules.get(f"{__package__}.segment"):
        module.INTERRUPTED.set()
    raise KeyboardInterrupt


def _quieten(verbose: bool) -> None:
    """Libraries' warnings are for developers; MONAI's, that a config is code, is about configs that are not ours."""
    logging.basicConfig(level=logging.DEBUG if verbose else logging.ERROR, format="%(name)s: %(message)s")
    for name in ("matplotlib", "PIL", "fontTools"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not verbose:
        warnings.simplefilter("ignore")
        os.environ.setdefault("PYTHONWARNINGS", "ignore")


def _segment(options: argparse.Namespace) -> int:
    output = Path(options.output).absolute()
    if options.threads is not None and options.threads < 1:
        raise Usage(f"--threads {options.threads}: give a number from 1.")
    try:
        Shard.parse(options.shard)
    except ValueError as error:
        raise Usage(str(error)) from error
    if options.device is not None and not isinstance(options.workers, str):
        _check_device(options.device)
    if options.dry_run:
        return _dry_run(options)
    try:
        if claim := Claim.take(output, "output"):
            claim.release()
    except OSError as error:
        raise Usage(f"{output}: no folder that can be written to ({error.strerror}): give another --output.") from error
    from .segment import segment

    names = ("series", "seg", "rtstruct", "probabilities", "native", "height", "weight", "bsa")
    names += ("anonymous", "resume", "fast", "device", "threads", "shard", "workers")
    settings = {name: getattr(options, name) for name in names}
    try:
        outcomes = segment(options.inputs, output, progress=not options.quiet and not options.json, **settings)
    except ValueError as error:
        raise Usage(str(error)) from error
    except ConnectionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    _tell(options, outcomes)
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


def _check_device(name: str) -> None:
    import torch

    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise Usage(f"--device {name}: not here ({str(error).splitlines()[0]}).") from error


def _tell(options: argparse.Namespace, outcomes: list) -> None:
    """Prints one line per study, the failures to stderr."""
    from dataclasses import asdict

    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    for outcome in outcomes:
        if outcome.status == "failed":
            print(f"error: {outcome.error}", file=sys.stderr)
        elif not options.quiet and not options.json:
            reasons = "; ".join(outcome.reasons)
            kept = " (kept)" if outcome.status == "kept" else ""
            verdict = VERDICTS[outcome.verdict] + (f": {reasons}" if reasons else "")
            print(f"{outcome.name}: {outcome.volume_ml:.0f} ml, {verdict}{kept}")
    if not options.quiet and not options.json:
        failed = sum(outcome.status == "failed" for outcome in outcomes)
        print(f"{len(outcomes) - failed} of {len(outcomes)} in {options.output}; for research use only")


def _dry_run(options: argparse.Namespace) -> int:
    """Says what would be read, and what the gates say of it; writes nothing."""
    from nibabel.affines import voxel_sizes

    from .reading import CTError, find, load
    from .results import set_aside

    shard = Shard.parse(options.shard)
    found = set_aside(shard.of(find(options.inputs, options.series)))
    errors = [line for _, line in found.refused]
    for scan in found.scans:
        try:
            ct = load(scan)
        except CTError as error:
            errors.append(str(error))
            continue
        size = " x ".join(map(str, ct.shape))
        spacing = " x ".join(f"{step:.3g}" for step in voxel_sizes(ct.affine.numpy()))
        facts = [f"{scan.name}: {size} voxels of {spacing} mm", ct.meta["notes"], ct.meta["doubts"]]
        print("; ".join(fact for fact in facts if fact))
    for line in found.aside:
        print(f"set aside: {line}")
    for line in errors:
        print(f"error: {line}", file=sys.stderr)
    return 1 if errors else 0


def _version() -> int:
    from importlib.metadata import version

    from .provenance import software

    for name, value in software().items():
        print(f"{name} {value}")
    for name in ("torch", "monai"):
        print(f"{name} {version(name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
