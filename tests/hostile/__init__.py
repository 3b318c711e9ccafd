"""Malformed and hostile input, as one table: what it is, how it is made, and what must come of it.

`python -m hostile` in `tests/` writes the table to the bundle's docs.
"""

from . import archives, dicoms, folders, images, nrrd, paths, pixels, stored_voxels, uids
from .case import Case

CASES: tuple[Case, ...] = (
    *images.CASES,
    *nrrd.CASES,
    *stored_voxels.CASES,
    *dicoms.CASES,
    *uids.CASES,
    *pixels.CASES,
    *folders.CASES,
    *archives.CASES,
    *paths.CASES,
)
assert len({case.name for case in CASES}) == len(CASES)

HEAD = """# Malformed and hostile input

What becomes of each, by the tests (`tests/hostile`, which writes this table: `cd tests; python -m hostile`). Refused is
one line with these words, nothing written, memory bounded, and the rest of a folder still read; read gives the right
voxels in the right place, with this note where there is one. Doubted is read, but the place, which the header does not
tell, may be wrong: the verdict is `review` or `reject`, and these words are a reason of it.

| | input | outcome |
|--:|---|---|
"""


def table() -> str:
    """The table as Markdown."""
    rows = (
        f"| {number} | {case.name} | {case.outcome}{': ' if case.says else ''}{case.says} |\n"
        for number, case in enumerate(CASES, 1)
    )
    return HEAD + "".join(rows)
