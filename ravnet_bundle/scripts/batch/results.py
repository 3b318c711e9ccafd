"""The files of one study's folder, and the table of all studies."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..assessment.judge import MEANINGS
from ..files import atomic, csv_text
from ..reading import Found, Scan, Voxels
from ..reading.errors import one_line
from .claims import Claim
from .options import MESH_FORMATS, Options
from .segmenter import Examined

if TYPE_CHECKING:
    from ..report import View

logger = logging.getLogger(__name__)

MANIFEST, MEASURES, TABLE = "manifest.json", "measures.json", "measures.csv"
MASK, PROBABILITY, SEG, RTSTRUCT = "liver.nii.gz", "probability.nii.gz", "liver.seg.dcm", "liver.rtstruct.dcm"
SR = "liver.sr.dcm"
PREVIEW, REPORT = "preview.png", "report.html"
MESHES = tuple(f"liver.{name}" for name in MESH_FORMATS)
UNTOLD = ("input", "source")  # hashes in the manifest's `about` that the report leaves out
ALL = (MASK, PROBABILITY, SEG, RTSTRUCT, SR, *MESHES, MEASURES, PREVIEW, REPORT, MANIFEST)


class Result(NamedTuple):
    """A study that is ready to be written."""

    scan: Scan
    ct: Voxels
    examined: Examined


def prepare() -> None:
    """Imports matplotlib, highdicom and others for `write` (half a second) while nobody waits for it."""
    from ..report import write_report  # noqa: F401
    from ..writing import write_nifti  # noqa: F401


def write(folder: Path, result: Result, options: Options, about: Mapping[str, Any], cost: Mapping[str, str]) -> None:
    """Writes a study's folder, the manifest last; after an error nothing of it is left.

    Args:
        folder: made if missing. Our files of an earlier run are removed; other files stay.
        result: of the study.
        options: which files to write.
        about: origin of the files, for the manifest.
        cost: run time and memory as text, only for the report: all other files depend only on the input.

    Raises:
        OSError: a file cannot be written.
    """
    from ..writing import write_manifest

    folder.mkdir(parents=True, exist_ok=True)
    _clear(folder)
    try:
        files = list(_files(folder, result, options, about, cost))
        write_manifest(folder / MANIFEST, files, **about)
    except BaseException:
        _clear(folder)
        with suppress(OSError):
            folder.rmdir()
        raise


def _clear(folder: Path) -> None:
    for name in (MANIFEST, *ALL):  # the manifest first: without it the folder is not complete
        (folder / name).unlink(missing_ok=True)
        (folder / f".{name}.part").unlink(missing_ok=True)  # left by a kill


def set_aside(found: Found) -> Found:
    """`found`, with our own results among the inputs set aside."""
    sources = {str(scan.source) for scan in found.scans} | {source for source, _ in found.refused}
    ours = {source for source in sources if _is_result(Path(source))}
    return Found(
        tuple(scan for scan in found.scans if str(scan.source) not in ours),
        tuple(pair for pair in found.refused if pair[0] not in ours),
        (*found.aside, *(f"{one_line(source)}: a result of ravnet segment" for source in sorted(ours))),
    )


def owner(folder: Path) -> str | None:
    """The `identity` of the scan of a results folder; "" for a foreign manifest, `None` without a manifest."""
    manifest = folder / MANIFEST
    if not manifest.exists():
        return None
    return str(json.loads(manifest.read_bytes())["about"].get("source", "")) if _is_ours(manifest) else ""


def _is_result(path: Path) -> bool:
    """Whether a file is, or a folder holds, a result of ours: its manifest names our mask."""
    return _is_ours(path / MANIFEST) or (path.name in ALL and _is_ours(path.parent / MANIFEST))


def _is_ours(manifest: Path) -> bool:
    try:
        found = json.loads(manifest.read_bytes())
        return isinstance(found["about"], dict) and MASK in found["files"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):  # missing, or not ours
        return False


def _files(
    folder: Path, result: Result, options: Options, about: Mapping[str, Any], cost: Mapping[str, str]
) -> Iterator[Path]:
    """Writes the files, two at a time, and yields their paths."""
    from ..report import view

    seen = view(result.ct.hu, [result.examined.found.mask], result.ct.affine)
    with ThreadPoolExecutor(1) as beside:
        mask_and_picture = beside.submit(list, _mask_and_picture(folder, result, seen))
        yield from _others(folder, result, seen, options, about, cost)
        yield from mask_and_picture.result()


def _mask_and_picture(folder: Path, result: Result, seen: View) -> Iterator[Path]:
    from ..report import write_preview
    from ..writing import write_nifti

    affine = np.asarray(result.ct.meta["original_affine"])  # not the straightened one
    write_nifti(result.examined.found.mask, affine, folder / MASK)
    yield folder / MASK
    write_preview(folder / PREVIEW, seen, f"{result.scan.name}: {result.examined.verdict.level}")
    yield folder / PREVIEW


def _others(
    folder: Path, result: Result, seen: View, options: Options, about: Mapping[str, Any], cost: Mapping[str, str]
) -> Iterator[Path]:
    from ..report import write_report
    from ..writing import Software, Unwritable, write_mesh, write_nifti, write_rtstruct, write_seg, write_sr

    (found, measures, verdict, notes), scan = result.examined, result.scan
    mask, affine = found.mask, result.ct.affine
    software = Software("RA V-Net", about["version"], about["weights"])
    judged: dict[str, Any] = {"verdict": verdict.level, "reasons": list(verdict.reasons)}
    for kind, name, write_dicom in (
        ("seg", SEG, partial(write_seg, mask, affine, scan.files)),
        ("rtstruct", RTSTRUCT, partial(write_rtstruct, mask, affine, scan.files)),
        ("sr", SR, partial(write_sr, folder / SEG, measures=measures, meaning=MEANINGS[verdict.level], **judged)),
    ):
        if kind == "sr" and not (folder / SEG).exists():  # the notes say why
            continue
        if getattr(options, kind) and scan.kind == "dicom":
            try:
                write_dicom(folder / name, software)
                yield folder / name
            except OSError:  # the disk: the other files need it too
                raise
            except Exception as error:  # odd headers; an unforeseen text may repeat the patient's data
                text = str(error) if isinstance(error, Unwritable) else f"odd headers ({type(error).__name__})"
                notes.append(f"no {kind.upper()} was written: {text}")
                logger.error("%s: %s", scan.source, notes[-1], exc_info=logger.isEnabledFor(logging.DEBUG))
    if options.probabilities:
        yield (path := folder / PROBABILITY)
        write_nifti(found.answer, found.affine, path)
    if options.mesh:
        yield (path := folder / f"liver.{options.mesh}")
        write_mesh(mask, affine, path)
    row = {"name": scan.name, "input": scan.shown, **judged, **measures, "notes": notes}
    text = json.dumps(row, indent=2)
    yield (path := folder / MEASURES)
    with atomic(path) as file:
        file.write(text.encode() + b"\n")
    yield (path := folder / REPORT)
    made = {key: str(value) for key, value in about.items() if value not in (None, False) and key not in UNTOLD}
    write_report(path, seen, name=scan.name, measures=measures, notes=notes, about={**made, **cost}, **judged)


def read(folder: Path) -> dict[str, Any]:
    """The content of a study's `measures.json`."""
    return json.loads((folder / MEASURES).read_text())


def write_table(output: Path) -> None:
    """Writes `measures.csv`: one row per complete study under `output`, by name; nothing without any study.

    Several processes do this one after the other, so the last one sees all studies.
    """
    if not any(output.glob(f"*/{MANIFEST}")):
        return
    with Claim.alone(output, TABLE):
        rows = [row for manifest in sorted(output.glob(f"*/{MANIFEST}")) if (row := _row(manifest))]
        if rows:
            with atomic(output / TABLE) as file:
                file.write(csv_text(rows).encode("utf-8", "backslashreplace"))


def _row(manifest: Path) -> dict[str, Any] | None:
    """A study's measures as a row; `None`, with a note, for a foreign folder."""
    try:
        row = read(manifest.parent) if _is_ours(manifest) else None
    except FileNotFoundError:  # another process does this study again, and will write the table
        return None
    except (OSError, ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        logger.warning("%s: not a result of ravnet segment: left out of %s", one_line(manifest.parent), TABLE)
        return None
    return {key: "; ".join(map(str, value)) if isinstance(value, list) else value for key, value in row.items()}
