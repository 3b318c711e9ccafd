"""The time of each stage of a cold `ravnet segment`.

python benchmarks/stages.py STARTED CT OUT REPORT

`volume.py --profile` runs it, and makes a table of the report.
STARTED is `time.time()` at the start of the process. REPORT becomes a JSON list of (stage, begin, end, peak): seconds
since STARTED, and the process's peak of resident memory, GiB, at the stage's end.
"""

from __future__ import annotations

import argparse
import functools
import json
import resource
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

START, IMPORTS, READING, GRID, FIRST, SECOND, STEPS, BACK, VERDICT, PICTURE, WRITING, END = (
    "Python and first modules", "PyTorch, MONAI, network", "reading", "to the grid", "first pass", "second pass",
    "3D steps", "back to the CT's grid", "measures and verdict", "picture and report", "writing", "end",
)  # fmt: skip
STAGES = (START, IMPORTS, READING, GRID, FIRST, SECOND, STEPS, BACK, VERDICT, PICTURE, WRITING, END)
STARTED = 0.0  # of the process, s
calls: list[tuple[str, float, float, float]] = []
busy = threading.local()  # a stage within another is a part of that


def now() -> float:
    return time.time() - STARTED


def note(stage: str, begin: float) -> None:
    calls.append((stage, begin, now(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20))


def timed(place: Any, name: str, stage: str | Callable[..., str]) -> None:
    """Has a function, which is found in `place` when it is called, timed."""
    function = getattr(place, name)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if getattr(busy, "inside", False):
            return function(*args, **kwargs)
        busy.inside, begin = True, now()
        try:
            return function(*args, **kwargs)
        finally:
            busy.inside = False
            note(stage if isinstance(stage, str) else stage(*args, **kwargs), begin)

    setattr(place, name, wrapped)


def main() -> int:
    global STARTED
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("started", metavar="STARTED", type=float)
    for name in ("ct", "out", "report"):
        parser.add_argument(name, metavar=name.upper())
    arguments = parser.parse_args()
    STARTED = arguments.started
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "ravnet_bundle"))
    from scripts import cli
    from scripts.batch import results, segmenter, studies

    note(START, 0)
    opened, prepare = segmenter.opened, results.prepare

    def opened_and_timed(options: Any) -> Any:
        pipeline = opened(options)
        from scripts.grid import FromGridd, ToGridd
        from scripts.inference.bowel import BowelContrastd
        from scripts.inference.diffusion import TissueDiffusiond
        from scripts.inference.localizing import LiverFirstInferer
        from scripts.inference.transforms import LargestComponentd, Smoothd

        timed(ToGridd, "__call__", GRID)
        timed(LiverFirstInferer, "slices", lambda self, volume, at, size, *rest: FIRST if size else SECOND)
        for step in (BowelContrastd, LargestComponentd, TissueDiffusiond, Smoothd):
            timed(step, "__call__", STEPS)
        timed(FromGridd, "__call__", BACK)
        return pipeline

    def prepared_and_timed() -> None:
        prepare()
        from scripts import report, writing

        for name in ("write_preview", "write_report"):
            timed(report, name, PICTURE)
        for name in ("write_nifti", "write_manifest"):
            timed(writing, name, WRITING)

    segmenter.opened, results.prepare = opened_and_timed, prepared_and_timed
    timed(segmenter, "opened", IMPORTS)
    timed(studies, "read", READING)
    for name in ("measure", "observe", "judge"):
        timed(segmenter, name, VERDICT)
    timed(results, "write_table", WRITING)
    sys.argv = ["ravnet", "segment", arguments.ct, "-o", arguments.out, "--quiet"]
    code = cli.main()
    Path(arguments.report).write_text(json.dumps(calls))
    return code


if __name__ == "__main__":
    sys.exit(main())
