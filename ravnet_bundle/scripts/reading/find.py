"""From inputs to their scans: each CT series and each image file once."""

import errno
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

from ..files import IMAGES, Missing, is_dicom, is_label, scan_name
from .dicom_grouping import Series, group, told
from .dicom_slice import read_slice
from .dicom_zip import Member, members
from .errors import CTError, one_line, one_reason
from .names import named_apart
from .scan import Found, Scan

logger = logging.getLogger(__name__)

LIST = 2**24  # most bytes of a text list
FEW = 3  # damaged files of a zip that are named; the rest is counted
HINTS = {"DICOMDIR": "it lists files; give their folder", "modality SEG": "a segmentation; give the CT itself"}


def find(inputs: Sequence[str | Path], series: str | int | None = None) -> Found:
    """The scans in what a person names, in that order; of images nothing is read, of DICOM the headers.

    An input is an image file (`IMAGES`), a DICOM file (it stands for its series, in its folder), a zip of DICOM, a
    folder of these at any depth, or a text list (.txt) of these, one a line, relative to the list. Empty lines and
    lines that begin with # are skipped. Links to folders are followed, each folder once. Zips are not unpacked to disk.

    Args:
        inputs: paths.
        series: which CT series of each study (StudyInstanceUID): None for all, "largest" for the one with most slices
            (if equal, the lowest SeriesNumber), or a SeriesNumber.

    Returns:
        scans, refused sources, and inputs that were set aside. An input without a scan is refused.
    """
    found = _together(_input(Path(source), series) for source in inputs)
    once = {scan.files: scan for scan in reversed(found.scans)}  # an input that is named twice keeps its first place
    kept = named_apart([once[files] for files in dict.fromkeys(scan.files for scan in found.scans)])
    return replace(found, scans=tuple(kept))


def find_scans(path: str, image_key: str = "image") -> Sequence[dict[str, str]]:
    """The scans of `find` under a path, as a config's data list; a DICOM series is its folder or zip.

    In a folder of the Decathlon's layout they are the scans of `imagesTs`.

    Returns:
        one item `{image_key: absolute path}` per scan, images before DICOM; without any scan, a list that raises
        `CTError` when an item is read. Refused sources are logged.
    """
    test = Path(path, "imagesTs")
    found = find([test if test.is_dir() else path])
    if not found.scans:
        return Missing(CTError(found.refused[0][1]))
    for _, line in found.refused:
        logger.warning(line)
    return [{image_key: str(source)} for source in dict.fromkeys(scan.source for scan in found.scans)]


def only_scan(path: str | Path) -> Scan:
    """The one scan of a path. Raises `CTError` if there are none or several."""
    found = find([path])
    if len(found.scans) == 1:
        return found.scans[0]
    if found.scans:
        raise CTError(f"{path}: {len(found.scans)} series or images; give one CT.")
    raise CTError(found.refused[0][1])


def _together(parts: Iterable[Found]) -> Found:
    parts = tuple(parts)
    return Found(*(tuple(one for part in parts for one in getattr(part, field.name)) for field in fields(Found)))


def _refused(source: Path, error: Exception | str) -> Found:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else error
    line = str(error) if isinstance(error, CTError) else f"{source}: cannot be read: {reason}."
    return Found((), ((one_line(source), one_line(line)),), ())


def _input(source: Path, series: str | int | None, listed: bool = False) -> Found:
    try:
        path = Path(os.path.abspath(source))
        if not path.exists():
            raise CTError(f"{source}: no such file or folder.")
        if path.suffix.lower() == ".txt" and path.is_file() and not listed:
            return _together(_input(path.parent / line, series, listed=True) for line in _lines(path))
        found = _together(_held(path, series))
        given = path if path.is_dir() else path.parent
        found = replace(found, scans=tuple(replace(scan, given=given) for scan in found.scans))
    except (CTError, OSError, ValueError) as error:  # a path with a null byte is a ValueError
        return _refused(source, error)
    if found.scans or found.refused:
        return found
    place = "folder" if path.is_dir() else "file"
    what = f"only {'; '.join(found.aside)}" if found.aside else f"expected {', '.join(IMAGES)}, DICOM or a zip of it"
    return _refused(source, CTError(f"{source}: no scan in this {place}: {what}."))


def _lines(path: Path) -> list[str]:
    with one_reason(path, "not a text list"), open(path, "rb") as file:
        content = file.read(LIST + 1)
        if len(content) > LIST:
            raise CTError(f"{path}: a list of more than {LIST >> 20} MB; split it, and give each part.")
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines:
        raise CTError(f"{path}: an empty list; write one path a line.")
    return lines


def _held(path: Path, series: str | int | None) -> Iterator[Found]:
    """The parts of one file's or folder's `Found`."""
    if path.is_dir():
        dicom: list[Path] = []
        errors: list[OSError] = []
        masks: Counter[Path] = Counter()
        for file in _files(path, errors):
            if _is_image(file) and is_label(file):
                masks[file.parent] += 1
            elif _is_image(file):
                yield _image(file)
            elif _is_zip(file):
                yield _zip(file, series)
            else:
                dicom.append(file)
        yield _dicom(dicom, path, series)
        yield from (_refused(Path(error.filename), error) for error in errors)
        yield Found((), (), tuple(one_line(f"{folder}: {number} masks set aside") for folder, number in masks.items()))
    elif not path.is_file():
        raise CTError(f"{path}: not a file or a folder; give a CT.")
    elif _is_image(path):
        yield _image(path)
    elif _is_zip(path):
        yield _zip(path, series)
    elif is_dicom(path):
        beside = sorted(path.parent.iterdir())
        yield _dicom(beside, path.parent, series, chosen=path)


def _files(root: Path, errors: list[OSError]) -> Iterator[Path]:
    """Ordinary files at any depth, by folder and name, without the `._` files that macOS leaves beside each.

    Links to folders are followed, but to none that has been seen, or that holds `root`. Folders that cannot be listed,
    and links of scans that lead nowhere, are added to `errors`.
    """
    for folder, names in sorted(_folders(root, errors)):
        for name in sorted(names):
            file = Path(folder, name)
            if name.startswith("._"):
                continue
            if file.is_file():
                yield file
            elif file.is_symlink() and not file.exists() and (_is_image(file) or _is_zip(file)):
                errors.append(FileNotFoundError(errno.ENOENT, "a link that leads nowhere", str(file)))


def _folders(root: Path, errors: list[OSError]) -> Iterator[tuple[str, list[str]]]:
    seen = {_place(folder) for folder in (root.resolve(), *root.resolve().parents)}
    for folder, below, names in os.walk(root, onerror=errors.append, followlinks=True):
        yield folder, names
        new = {_place(Path(folder, name)): name for name in sorted(below, reverse=True)}  # of equals the first one
        below[:] = [name for place, name in new.items() if place not in seen]
        seen.update(new)


def _place(folder: Path) -> tuple[int, int]:
    held = os.stat(folder)
    return held.st_dev, held.st_ino


def _is_image(path: Path) -> bool:
    return path.name.lower().endswith(IMAGES)


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip"


def _image(path: Path) -> Found:
    return Found((Scan(scan_name(path), path, (path,), "image"),), (), ())


def _zip(path: Path, series: str | int | None) -> Found:
    try:
        files, others = members(path)
    except CTError as error:
        return _refused(path, error)
    found = _dicom(files, path, series)
    lines = [line for _, line in found.refused]
    if len(lines) > FEW + 1:
        lines[FEW:] = [one_line(f"{path}: {len(lines) - FEW} more files in it cannot be read either.")]
    left = (one_line(f"{path}: {count} files set aside ({what})") for what, count in sorted(others.items()))
    return Found(found.scans, tuple((one_line(path), line) for line in lines), (*found.aside, *left))


def _dicom(files: Sequence[Path | Member], root: Path, series: str | int | None, chosen: Path | None = None) -> Found:
    """The CT series of the DICOM files among `files`; with `chosen`, only the series of that file.

    A scan is named after its folder, and after its SeriesNumber if there are several.

    Raises:
        CTError: `chosen` is damaged, or belongs to no CT series.
    """
    series_found, refused, others = group(files)
    if chosen:
        series_found = [_of(chosen, series_found, others)]
        beside = [f"{len(refused)} files beside {chosen.name} cannot be read"] if refused else []
        series, refused, aside = None, [], [f"{root}: {line}" for line in beside]
    else:
        folders = sorted({file.parent for file, _ in others})
        aside = [
            f"{folder}: {line}" for folder in folders for line in told(one for one in others if one[0].parent == folder)
        ]
    picked, left, missing = _picked(series_found, series)
    refused = [*refused, *((root, f"{root}: {line}") for line in missing)]
    aside += [f"{root}: {line}" for line in left]
    folders = [Path(os.path.commonpath([each.file.parent for each in one.slices])) for one in picked]
    scans = []
    for one, folder in zip(picked, folders, strict=True):
        several = folders.count(folder) > 1 and one.number is not None
        which = f", series {one.number}{one.part.replace('_a', ', acquisition ').replace('_t', ', phase ')}"
        which = which if several or one.part else ""
        part = (f"_s{one.number}" if several else "") + one.part
        files = tuple(each.file for each in one.slices)
        scans.append(Scan(folder.name, folder, files, "dicom", one.notes, one.slices, which, part))
    lines = tuple((one_line(file), one_line(line)) for file, line in refused)
    return Found(tuple(scans), lines, tuple(map(one_line, aside)))


def _of(chosen: Path, found: list[Series], others: list[tuple[Path | Member, str]]) -> Series:
    """The series of a file."""
    meant = read_slice(chosen)
    what = meant if isinstance(meant, str) else dict(others).get(chosen, "of no series")
    own = [one for one in found if any(each.file == chosen for each in one.slices)]  # not so, if doubled
    own += [one for one in found if not isinstance(meant, str) and (one.study, one.uid) == (meant.study, meant.series)]
    if not own:
        raise CTError(f"{chosen}: no CT volume: {what}; {HINTS.get(what, 'give a CT series')}.")
    return own[0]


def _picked(found: list[Series], series: str | int | None) -> tuple[list[Series], list[str], list[str]]:
    """The series chosen by `find`'s `series`; a line for each series left out, and for each study without a match."""
    if series is None:
        return found, [], []
    studies = defaultdict(list)
    for one in found:
        studies[one.study].append(one)
    picked, left, missing = [], [], []
    for several in studies.values():
        if series == "largest":
            chosen = [max(several, key=lambda one: (len(one.slices), -(one.number or 0)))]
        else:
            chosen = [one for one in several if str(one.number) == str(series)]
        if not chosen:
            there = ", ".join(f"{one.number} ({len(one.slices)} slices)" for one in several)
            missing.append(f"no CT series {series}: there are {there}.")
        else:
            left += [f"CT series {one.number} not chosen" for one in several if one not in chosen]
        picked += chosen
    return picked, left, missing
