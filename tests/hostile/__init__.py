"""Malformed and hostile input, as one table: what it is, how it is made, and what must come of it.

`python -m hostile` in `tests/` writes the table to the bundle's docs.
"""

from . import archives, dicoms, folders, images, nrrd, paths, pixels, stored_voxels, uids
from .case import Case

SECTIONS: dict[str, tuple[Case, ...]] = {
    "NIfTI": tuple(images.CASES),
    "NRRD and MetaImage": (*nrrd.CASES, *stored_voxels.CASES),
    "DICOM": (*dicoms.CASES, *uids.CASES, *pixels.CASES, *folders.CASES),
    "Zip": tuple(archives.CASES),
    "Paths, folders and lists": tuple(paths.CASES),
}
CASES: tuple[Case, ...] = tuple(case for cases in SECTIONS.values() for case in cases)
assert len({case.name for case in CASES}) == len(CASES)

HEAD = """# Malformed and hostile input

| outcome | meaning |
|---|---|
| read | The right voxels in the right place. A note names the change. |
| doubted | Read, but axes or spacing may be wrong. The verdict is at least `review`, with these words as a reason. |
| refused | One line with these words. Nothing is written, memory stays bounded, the rest of a folder is read. |

The usual refusals:

| words | what to do |
|---|---|
| not HU, soft tissue, mask, normalised | Give a CT in HU, rescaled once and not normalised: no MR, PET or mask. |
| cannot be read, truncated, damaged | Copy or export the file again. |
| a gap, unevenly spaced, missing | Fetch the missing slices. |
| doubled | Give one series, one phase. |
| more than one, off one line | Give the slices of one reconstruction. |
| degrees off a right angle | The gantry was tilted: resample the CT to an upright grid first. |
| enhanced multiframe | Convert it to one file a slice (dcm4che's `emf2sf`). |
| mm is not within | The header's spacing is wrong, or its unit is not mm. |
| no orientation, identity | Convert the CT from its DICOM again, or check that the mask's left and right are correct. |

The tables list every input that the tests make: first the inputs that are read, then the refused ones.
To write this page anew: `cd tests; python -m hostile`.
"""
PREFIXES = ("NIfTI with ", "NIfTI ", "DICOM folder with ", "DICOM folder ", "DICOM ", "zip ")


def table() -> str:
    """The page as Markdown: two tables for each section, with a row for the inputs that end in the same words."""
    page = HEAD
    for section, cases in SECTIONS.items():
        read, refused = [case for case in cases if not case.refused], [case for case in cases if case.refused]
        page += f"\n## {section}\n" + _rows("note", read) + _rows("refused with", refused)
    return page


def _rows(title: str, cases: list[Case]) -> str:
    rows: dict[str, list[str]] = {}
    for case in cases:
        words = f"doubted: {case.says}" if case.doubted else case.says.strip() or "none"
        name = next((case.name.removeprefix(prefix) for prefix in PREFIXES if case.name.startswith(prefix)), case.name)
        rows.setdefault(words, []).append(name)
    table = "".join(f"| {words} | {'; '.join(names)} |\n" for words, names in rows.items())
    return f"\n| {title} | input |\n|---|---|\n{table}"
