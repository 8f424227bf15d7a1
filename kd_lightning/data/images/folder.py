"""Folders of photos `<split>/<class>/*`: which pictures they hold, and what is left out."""

import os
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

from kd_lightning.data.images.find import is_hidden, pictures, told
from kd_lightning.data.images.photos import Photos, printable
from kd_lightning.data.module import Split
from kd_lightning.types import UNLABELED
from kd_lightning.utils.checks import UserError, did_you_mean
from kd_lightning.utils.console import say

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def folder_path(key: str, value: Any) -> Path:
    """Return the folder that the user gave as `key`. Raises UserError if it is not a path."""
    if not isinstance(value, str | Path):
        raise UserError(f"{key} must be a folder, got {value!r}")
    return Path(value).expanduser()


def scan(root: Path, used: Path | None = None) -> tuple[list[str], dict[Split, Photos]]:
    """Return the class names (those of `train`, sorted) and the photos of the splits that are there.

    One line for each folder tells what is left out.

    Args:
        root: Folder of the splits.
        used: Folder beside them that has another purpose.

    Raises:
        UserError: If the root, `train`, or images of a class are missing, or if the splits differ in classes.
    """
    _check_folder("data.root", root)
    if not (root / "train").is_dir():
        there = sorted(p.name for p in root.iterdir() if p.is_dir())
        hint = did_you_mean("train", there) or f"; it has {', '.join(there) or 'no folders'}"
        raise UserError(f"data.root={root} must have a folder train with one folder of images per class{hint}")
    folders = {split: _class_folders(root / split) for split in SPLITS if (root / split).is_dir()}
    _tell_beside(root, used)
    classes = sorted(folders["train"])
    if len(classes) < 2:
        raise UserError(f"{root / 'train'} must have one folder per class, at least 2, got {len(classes)}: {classes}")
    photos = {}
    for split, found in folders.items():
        _check_classes(root / split, found, classes)
        left_out = _beside_classes(root / split)
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            files = pictures(found[name], left_out)
            if not files:
                why = f" ({told(left_out)} left out)" if left_out else ""
                raise UserError(f"class folder {found[name]} has no images{why}; add some or remove the folder")
            paths += files
            labels += [label] * len(files)
        _tell(root / split, left_out)
        photos[split] = Photos([os.fsencode(path) for path in paths], labels)
    return classes, photos


def scan_unlabeled(root: Path) -> Photos:
    """Return the pictures at any depth below `root`, without classes; a line tells what is left out.

    Raises:
        UserError: If there are none.
    """
    _check_folder("data.unlabeled_root", root)
    left_out: Counter[str] = Counter()
    paths = pictures(root, left_out)
    _tell(root, left_out)
    if not paths:
        raise UserError(f"data.unlabeled_root={root} has no images")
    return Photos([os.fsencode(path) for path in paths], [UNLABELED] * len(paths))


def _check_folder(key: str, root: Path) -> None:
    if not root.is_dir():
        raise UserError(f"{key}={root}: there is no such folder ({root.absolute()})")


def _tell_beside(root: Path, used: Path | None) -> None:
    """Tell which folders beside the splits are left out: `valid` is not `val`."""
    beside = [path for path in root.iterdir() if path.is_dir() and path.name not in SPLITS]
    names = sorted(printable(path.name) for path in beside if not is_hidden(path.name) and path != used)
    if names:
        say(f"{root}: left out {', '.join(names)}; the folders of the splits are train, val and test")


def _beside_classes(folder: Path) -> Counter[str]:
    """Return counts of what lies in the folder of a split and is no class."""
    left_out = Counter(f"hidden folder {p.name}" for p in folder.iterdir() if p.is_dir() and is_hidden(p.name))
    files = sum(not p.is_dir() and not is_hidden(p.name) for p in folder.iterdir())
    return left_out + Counter({"file outside of the class folders": files})


def _class_folders(folder: Path) -> dict[str, Path]:
    """Return class name → folder. Names are compared as a reader sees them: composed accents, single blanks."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name)):
        shown = os.fsencode(path.name).decode(errors="backslashreplace")
        if shown != path.name or not path.name.isprintable():
            raise UserError(f"the name of the class folder {shown!r} in {folder} is not printable UTF-8; rename it")
        name = " ".join(unicodedata.normalize("NFC", path.name).split())
        if not name:
            raise UserError(f"the name of the class folder {path.name!r} in {folder} is blank; rename it")
        if name in found:
            raise UserError(
                f"{folder} has two folders for the class {name!r}, {found[name].name!r} and {path.name!r}, whose names "
                "differ in blanks or in how accents are written; put their images into one"
            )
        found[name] = path
    return found


def _check_classes(folder: Path, found: dict[str, Path], classes: list[str]) -> None:
    missing, extra = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
    if missing or extra:
        what = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has also {', '.join(extra)}"] * bool(extra)
        raise UserError(f"{folder} must have the same classes as train, but it {' and '.join(what)}")


def _tell(folder: Path, left_out: Counter[str]) -> None:
    if left_out:
        say(f"{folder}: left out {told(left_out)}")
