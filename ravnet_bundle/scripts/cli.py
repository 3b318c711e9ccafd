"""`ravnet`: the command line. It imports MONAI and PyTorch only to do a study."""

import argparse
import ctypes
import gc
import json
import logging
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from .batch import interruption, opening
from .batch.claims import Claim
from .batch.options import Options
from .batch.shards import Shard

M_ARENA_MAX = -8  # of glibc's malloc.h
VERDICTS = {"ok": "ok", "review": "REVIEW", "reject": "REJECT"}


class Usage(Exception):
    """A wrong command; exit code 2."""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="ravnet",
        description="Liver segmentation in CT with RA V-Net. For research use only.",
        epilog="Example: ravnet segment CT.nii.gz -o OUT. All options: ravnet segment --help.",
        allow_abbrev=False,
    )
    top.add_argument("--version", action="store_true", help="print versions and the weights' sha256")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")
    p = commands.add_parser(
        "segment",
        help="CT in; mask, volume, picture, report and verdict out",
        description="Writes OUT/NAME/ for each CT (mask, measures, report.html, preview.png) and OUT/measures.csv.",
        epilog="Example: ravnet segment CT.nii.gz DICOM -o OUT. Exit code: 0 all done, 1 some failed, 2 wrong command, "
        "130 interrupted. For research use only.",
        allow_abbrev=False,
    )
    p.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="NIfTI, NRRD, MetaImage or DICOM file, DICOM folder or zip, folder of these, .txt list of these",
    )
    p.add_argument("-o", "--output", required=True, metavar="OUT", help="folder for the results")
    for option in fields(Options):
        more = dict(option.metadata)
        if isinstance(option.default, bool):
            more["action"] = argparse.BooleanOptionalAction if option.default else "store_true"
        p.add_argument(f"--{option.name}", default=option.default, **more)
    p.add_argument("--dry-run", action="store_true", help="only read and check the inputs; write nothing")
    p.add_argument("--json", action="store_true", help="print only the outcomes, as JSON")
    volume = p.add_mutually_exclusive_group()
    volume.add_argument("--quiet", action="store_true", help="print only failures")
    volume.add_argument("--verbose", action="store_true", help="print each step, and tracebacks of errors")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Runs a command line and returns its exit code."""
    interruption.listen()
    if arguments is None:
        sys.setswitchinterval(0.0005)  # s; so the reading waits less for the imports beside it
        with suppress(AttributeError, OSError, TypeError):  # only glibc has it
            ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)  # one heap for all threads: a tenth less memory
    opening.own_process = arguments is None
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # the terminal may not show all characters of a name
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
    except BaseException:
        if not interruption.INTERRUPTED.is_set():
            raise
    if interruption.INTERRUPTED.is_set():  # its exception may have been lost or replaced
        _complain(interruption.LINE)
        code = interruption.CODE
    if arguments is None:  # nothing is left to be interrupted
        for number in interruption.SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        gc.freeze()  # a last garbage collection of all modules would take a second
    code = _flushed(code)
    if arguments is None and interruption.INTERRUPTED.is_set():
        os._exit(code)  # do not wait for a thread that still imports modules
    return code


def _run(arguments: Sequence[str]) -> int:
    top = parser()
    try:
        options = top.parse_args([_as_path(argument) for argument in arguments])
    except SystemExit as end:  # argparse has said why
        return int(end.code or 0)
    if not options.version and options.command is None:
        top.print_help()
        return 2
    _quieten(getattr(options, "verbose", False), getattr(options, "quiet", False))
    try:
        return _version() if options.version else _segment(options)
    except Usage as error:
        _complain(f"error: {error}")
        return 2


def _as_path(argument: str) -> str:
    """Makes an existing file with a name that begins with `-` a path, so that it is not read as an option."""
    option = argument in ("-o", "-h") or argument.startswith("--")
    return f"./{argument}" if argument[:1] == "-" and not option and os.path.lexists(argument) else argument


def _complain(line: str) -> None:
    with suppress(OSError):  # stderr is closed
        print(line, file=sys.stderr, flush=True)


def _flushed(code: int) -> int:
    """Flushes standard output; returns 1 if that fails, unless the reader has closed the pipe."""
    try:
        if sys.stdout:
            sys.stdout.flush()
        return code
    except OSError as error:
        with suppress(OSError):  # else Python tries again at its end, with a message
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return code
        _complain(f"error: standard output: {error.strerror}")
        return code or 1


def _quieten(verbose: bool, quiet: bool) -> None:
    """Hides libraries' warnings, which are for developers; MONAI warns that a config is code, but ours is known."""
    form = "%(name)s: %(message)s" if verbose else "note: %(message)s"
    logging.basicConfig(level=logging.DEBUG if verbose else logging.ERROR, format=form)
    if not verbose:
        logging.getLogger(__package__).setLevel(logging.ERROR if quiet else logging.WARNING)
    for name in ("matplotlib", "PIL", "fontTools"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if not verbose:
        warnings.simplefilter("ignore")
        os.environ.setdefault("PYTHONWARNINGS", "ignore")


def _segment(options: argparse.Namespace) -> int:
    output = Path(options.output).absolute()
    asked = {option.name: getattr(options, option.name) for option in fields(Options)}
    try:
        Options(**asked)
    except ValueError as error:
        raise Usage(str(error)) from error
    if not options.json and (outcomes := _missing(options.inputs)):  # before PyTorch is loaded, which takes seconds
        _tell(options, outcomes)
        return 1
    if options.dry_run:
        return _dry_run(options, output)
    try:
        if claim := Claim.take(output, "output"):
            claim.release()
    except OSError as error:
        raise Usage(f"{output}: cannot be written to ({error.strerror}): give another --output.") from error
    with interruption.loading():
        from .batch.segment import segment

    try:
        outcomes = segment(options.inputs, output, progress=not options.quiet and not options.json, **asked)
    except ValueError as error:
        raise Usage(str(error)) from error
    except ConnectionError as error:
        _complain(f"error: {error}")
        return 1
    _tell(options, outcomes)
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


def _missing(inputs: Sequence[str]) -> list[Any]:
    """Failed outcomes if none of the inputs exists."""
    if any(os.path.exists(source) or not source.isprintable() for source in inputs):
        return []
    return [SimpleNamespace(status="failed", error=f"{source}: no such file or folder.") for source in inputs]


def _tell(options: argparse.Namespace, outcomes: Sequence[Any]) -> None:
    """Prints one line per study; failures go to stderr."""
    lines = []
    if options.json:
        lines.append(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    for outcome in outcomes:
        if outcome.status == "failed":
            _complain(f"error: {outcome.error}")
        elif not options.quiet and not options.json:
            reasons = " ".join(outcome.reasons)
            kept = " (kept)" if outcome.status == "kept" else ""
            verdict = VERDICTS[outcome.verdict] + (f": {reasons}" if reasons else "")
            lines.append(f"{outcome.name}: {outcome.volume_ml:.0f} ml, {verdict}{kept}")
    if not options.quiet and not options.json and not options.dry_run:
        failed = sum(outcome.status == "failed" for outcome in outcomes)
        lines.append(f"{len(outcomes) - failed} of {len(outcomes)} in {options.output}; for research use only")
    _say(lines)


def _say(lines: Sequence[str]) -> None:
    with suppress(OSError):  # `_flushed` reports it at the end
        for line in lines:
            print(line)


def _dry_run(options: argparse.Namespace, output: Path) -> int:
    """Reads and checks all inputs; writes nothing.

    It prints the name and facts of each study. Inputs that are set aside or refused go to stderr, with their paths.
    """
    with interruption.loading():
        from .batch.pseudonyms import hidden, salt_there, settle
        from .batch.results import set_aside
        from .geometry import spacing_of
        from .reading import CTError, find, read

    found = find(options.inputs, options.series)
    salt = salt_there(output) if hidden(found.scans, options.anonymous) else b""
    scans = settle(found.scans, output, options.anonymous, salt)
    found = set_aside(Shard.parse(options.shard).of(replace(found, scans=scans)))
    errors = [line for _, line in found.refused]
    for scan in found.scans:
        try:
            ct = read(scan)
        except CTError as error:
            errors.append(str(error))
            continue
        size = " x ".join(map(str, ct.hu.shape))
        spacing = " x ".join(f"{step:.3g}" for step in spacing_of(ct.affine))
        facts = [f"{scan.name}: {size} voxels of {spacing} mm", ct.meta["notes"], ct.meta["doubts"]]
        _say(["; ".join(fact for fact in facts if fact)])
    for line in found.aside:
        _complain(f"set aside: {line}")
    for line in errors:
        _complain(f"error: {line}")
    return 1 if errors else 0


def _version() -> int:
    from importlib.metadata import version

    from .inference.provenance import software

    _say([f"{name} {value}" for name, value in software().items()])
    _say([f"{name} {version(name)}" for name in ("torch", "monai")])
    return 0


if __name__ == "__main__":
    sys.exit(main())
