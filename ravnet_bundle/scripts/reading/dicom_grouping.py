"""From DICOM files to CT series with their slices in order; other files are set aside by kind."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..files import is_dicom
from .dicom_slice import Slice, dataset, read_slice
from .dicom_zip import Member
from .errors import CTError, one_reason

# Formats of CTs that this bundle does not read: they are reported.
UNREAD = (
    ".7z", ".dcm", ".gipl", ".gz", ".hdr", ".ima", ".img", ".mgz", ".mnc", ".nhdr", ".nia", ".rar", ".tar", ".tgz",
    ".vti",
)  # fmt: skip


SAME_PLACE = 0.01  # mm
LEAST, NEARLY = 4, 0.9  # slices, and the share of equal distances between them, to join groups into one series


class Series(NamedTuple):
    """One series' slices, lowest along their normal first."""

    uid: str
    number: int | None
    study: str
    slices: tuple[Slice, ...]
    notes: tuple[str, ...] = ()
    part: str = ""  # tells it from others of the same number: "_a2" is the second acquisition


def group(
    files: Iterable[Path | Member],
) -> tuple[list[Series], list[tuple[Path | Member, str]], list[tuple[Path | Member, str]]]:
    """Groups files into CT series, by series number; also returns the refused files and those set aside, with reasons.

    - Set aside: localizers, secondary captures, projections, colour images, other modalities, and series at a single
      position (contrast monitoring).
    - Dropped: images that repeat another's pixels at its position.
    - Slices with different UIDs are one series if their positions form one.
    - Acquisitions and phases under one UID are separate series if each is evenly spaced.
    """
    members: dict[tuple, list[Slice]] = defaultdict(list)
    refused: list[tuple[Path | Member, str]] = []
    others: list[tuple[Path | Member, str]] = []
    for file in files:
        try:
            with one_reason(file):
                if isinstance(file, Path) and not is_dicom(file):
                    if file.suffix.lower() in UNREAD:
                        others.append((file, f"{file.suffix.lower()}: not read"))
                    continue
                found = read_slice(file)
        except CTError as error:
            refused.append((file, str(error)))
            continue
        if isinstance(found, str):
            others.append((file, found))
        else:  # an anonymiser may have emptied the UID
            members[found.study, found.series or (found.file.parent, found.number)].append(found)
    series = []
    for slices, notes in _joined(list(members.values())):
        ordered = order(slices)
        kept = distinct(ordered)
        positions = {one.position for one in kept}
        if len(positions) == 1 and not kept[0].multiframe and () not in positions:
            others += [(one.file, "CT at a single position") for one in ordered]
            continue
        doubled = len(ordered) - len(kept)
        notes += (f"{doubled} doubled slices dropped",) if doubled else ()
        series += [
            Series(kept[0].series, kept[0].number, kept[0].study, tuple(some), notes, part)
            for some, part in _apart(kept)
        ]
    for index, one in enumerate(series):
        folders = {each.file.parent for each in one.slices}
        beside = told((pair for pair in others if pair[0].parent in folders), " beside it")
        series[index] = one._replace(notes=(*one.notes, *beside))
    series.sort(
        key=lambda one: (one.slices[0].file.parent, one.number is None, one.number or 0, -len(one.slices), one.part)
    )
    return series, refused, others


def told(others: Iterable[tuple[Path | Member, str]], where: str = "") -> list[str]:
    """Lines that count the files set aside, by kind."""
    kinds = sorted(Counter(what for _, what in others).items())
    return [
        f"{number} {'' if what.endswith('not read') else 'DICOM '}file{'s' * (number > 1)}{where} set aside ({what})"
        for what, number in kinds
    ]


def order(slices: Iterable[Slice]) -> list[Slice]:
    """Slices sorted along the first one's normal; by InstanceNumber if one has no position."""
    slices = list(slices)
    if any(not one.position or not one.directions for one in slices):
        return sorted(slices, key=lambda one: (one.instance, one.file))
    heights = dict(zip(slices, _heights(slices), strict=True))
    return sorted(slices, key=lambda one: (heights[one], one.instance, one.file))


def distinct(slices: Sequence[Slice]) -> list[Slice]:
    """Slices without those that repeat another's pixels at its position."""
    places = defaultdict(list)
    for one in slices:
        places[one.position].append(one)
    doubled = {place for place, group in places.items() if place and len(group) > 1}
    seen, kept = set(), []
    for one in slices:
        key = (one.position, _pixels(one.file)) if one.position in doubled else one.file
        if key not in seen:
            seen.add(key)
            kept.append(one)
    return kept


def evenly_spaced(slices: Sequence[Slice]) -> bool:
    """Whether there are at least two slices, in any order, at different positions and equal distances."""
    if len(slices) < 2 or any(not one.position or not one.directions for one in slices):
        return False
    gaps = np.diff(np.sort(_heights(slices)))
    return bool(gaps.min() > SAME_PLACE and np.ptp(gaps) <= tolerance(gaps))


def tolerance(gaps: np.ndarray) -> float:
    """How much distances between slices may differ, mm."""
    return max(0.1, 0.05 * float(np.median(gaps)))


def _heights(slices: Sequence[Slice]) -> np.ndarray:
    row, column = np.split(np.asarray(slices[0].directions), 2)
    return np.asarray([one.position for one in slices]) @ np.cross(row, column)


def _joined(groups: list[list[Slice]]) -> list[tuple[list[Slice], tuple[str, ...]]]:
    """Joins groups of slices that together are one series, and adds a note.

    They must share folder, patient, series number and grid, and together be evenly spaced, except for a few missing
    slices. And a group must lack a UID, be a single slice, or lie between another's slices.
    """
    alike: dict[object, list[list[Slice]]] = defaultdict(list)
    for slices in groups:
        one = slices[0]
        same = (one.file.parent, one.patient, one.number, one.shape, one.spacing, one.directions)
        alike[same if one.position and one.directions else id(slices)].append(slices)
    result: list[tuple[list[Slice], tuple[str, ...]]] = []
    for several in alike.values():
        together = [one for slices in several for one in slices]
        if len(several) > 1 and _nearly_even(together) and _in_pieces(several, together):
            uids = {"Study": {one.study for one in together}, "Series": {one.series for one in together}}
            names = " and ".join(f"{level}InstanceUID" for level, found in uids.items() if len(found) > 1)
            result.append((together, (f"slices of several {names} taken as one series, by their places",)))
        else:
            result += [(slices, ()) for slices in several]
    return result


def _nearly_even(slices: list[Slice]) -> bool:
    if len(slices) < LEAST:
        return False
    gaps = np.diff(np.sort(_heights(slices)))
    usual = np.abs(gaps - np.median(gaps)) <= tolerance(gaps)
    return bool(gaps.min() > SAME_PLACE and usual.mean() >= NEARLY)


def _in_pieces(several: list[list[Slice]], together: list[Slice]) -> bool:
    heights = dict(zip(together, _heights(together), strict=True))
    ranges = [(min(heights[one] for one in slices), max(heights[one] for one in slices)) for slices in several]
    between = any(a[0] < b[1] and b[0] < a[1] for a, b in combinations(ranges, 2))
    return between or any(len(slices) == 1 or not (slices[0].study and slices[0].series) for slices in several)


def _apart(slices: list[Slice]) -> list[tuple[list[Slice], str]]:
    """Splits slices that are not evenly spaced by acquisition or phase, if each part is evenly spaced."""
    if not evenly_spaced(slices):
        for which, letter in ((0, "a"), (1, "t")):
            parts: dict[int | None, list[Slice]] = defaultdict(list)
            for one in slices:
                parts[one.acquisition[which]].append(one)
            if len(parts) > 1 and None not in parts and all(map(evenly_spaced, parts.values())):
                numbers = sorted(number for number in parts if number is not None)
                return [(parts[number], f"_{letter}{number}") for number in numbers]
    return [(slices, "")]


def trouble(slices: Sequence[Slice]) -> str:
    """Says where sorted slices are doubled or missing."""
    heights = _heights(slices)
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    doubled = [f"{lower:.1f}" for lower, gap in zip(heights, gaps) if gap < SAME_PLACE]
    wide = [f"{lower:.1f} and {upper:.1f}" for lower, upper in pairwise(heights) if upper - lower > 1.5 * usual > 0]
    texts = []
    if doubled:
        texts.append(f"{len(doubled)} of them doubled, at {_some(doubled)} mm")
        numbers = sorted({number for one in slices if (number := one.acquisition[0]) is not None})
        if len(numbers) > 1:
            texts.append(f"of the acquisitions {_some(list(map(str, numbers)))}")
    elif wide:
        texts.append(f"a gap between {_some(wide)} mm")
    return ", ".join(texts)


def _some(texts: list[str]) -> str:
    return ", ".join(texts[:3]) + (", ..." if len(texts) > 3 else "")


def _pixels(file: Path | Member) -> str:
    """A digest of a file's pixels and rescale; its path if they cannot be read."""
    try:
        found = dataset(file)
        scale = f"{found.RescaleSlope} {found.RescaleIntercept}"
        return hashlib.sha256(found.PixelData + scale.encode()).hexdigest()
    except (CTError, AttributeError):
        return str(file)
