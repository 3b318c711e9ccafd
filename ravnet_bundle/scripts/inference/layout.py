"""Where `configs/inference.json` saves masks."""

import os
from pathlib import Path

from monai.data import FolderLayoutBase

from ..files import IMAGES, is_dicom, scan_name


def scan_root(path: str) -> str:
    """The folder below which output folders mirror input folders: a file's or DICOM folder's own, or the folder.

    If `path` does not exist, the scans come from elsewhere. Then the result is "", which mirrors no folders.
    """
    root = Path(path).absolute()
    if not root.exists():
        return ""
    single = not root.is_dir() or any(is_dicom(file) for file in root.iterdir())
    return str(root.parent if single else root)


class MaskLayout(FolderLayoutBase):
    """`OUTPUT_DIR/FOLDER/NAME_POSTFIX.EXTENSION` for each scan, where FOLDER mirrors its folder below the inputs' root.

    NAME is the image file's name without its extension, or the DICOM folder's full name: UIDs have dots, and MONAI's
    own `FolderLayout` cuts after the last dot. If another file in the folder would get the same name (`x.nii` beside
    `x.nii.gz`), the extension stays in the name. If another scan of this process has that name, a number is added.

    Args:
        output_dir: folder for the masks; made if need be.
        postfix: after the name; none if empty.
        extension: of the mask, such as ".nii.gz".
        data_root_dir: the inputs' root; scans that lie elsewhere are saved in `output_dir` itself.
        parent: whether each mask gets a folder with its scan's name.
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        postfix: str = "",
        extension: str = ".nii.gz",
        data_root_dir: str | os.PathLike = "",
        parent: bool = False,
    ):
        self.output_dir, self.root = Path(output_dir), data_root_dir and Path(data_root_dir).absolute()
        self.ending = (f"_{postfix}" if postfix else "") + extension
        self.parent = parent
        self.owners: dict[Path, Path] = {}

    def filename(self, subject: str | os.PathLike = "subject", idx: int | None = None, **kwargs: object) -> Path:
        """The path for one scan's mask; its folder is made."""
        source = Path(subject).absolute()
        mirrored = source.parent.relative_to(self.root) if self.root in source.parents else Path()
        more = ("" if idx is None else f"_{idx}") + "".join(f"_{key}-{value}" for key, value in kwargs.items())
        name, number = _name(source), 1
        while True:
            numbered = f"{name}_{number}" if number > 1 else name
            folder = self.output_dir / mirrored / (numbered if self.parent else "")
            path = folder / f"{numbered}{more}{self.ending}"
            if self.owners.setdefault(path, source) == source:
                folder.mkdir(parents=True, exist_ok=True)
                return path
            number += 1


def _name(source: Path) -> str:
    if not source.name.lower().endswith(IMAGES) or source.is_dir():
        return source.name
    name = scan_name(source)
    beside = source.parent.iterdir() if source.parent.is_dir() else ()
    alike = (other for other in beside if other.name != source.name and not other.name.startswith("."))
    return source.name if any(_taken(other) == name.casefold() for other in alike) else name


def _taken(other: Path) -> str:
    """The name of another file or folder in the folder, if it is a scan or may be one."""
    if other.name.lower().endswith(IMAGES):
        return scan_name(other).casefold()
    return other.name.casefold() if other.is_dir() else ""
