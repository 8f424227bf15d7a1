"""Folders of files `<split>/<class>/*`: which files they hold, and what is left out."""

import difflib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kd_lightning.data.find_files import FileKind, as_seen, is_hidden, printable
from kd_lightning.data.module import Split
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say

SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Found(NamedTuple):
    """Files of one split."""

    paths: list[Path]
    labels: list[int]
    """Class index of each."""


def folder_path(key: str, value: Any) -> Path:
    """Return the folder that the user gave as `key`. Raises UserError if it is not a path."""
    if not isinstance(value, str | Path):
        raise UserError(f"{key} must be a folder, got {value!r}")
    return Path(value).expanduser()


def check_folder(key: str, root: Path) -> None:
    """Raise UserError unless the folder is there."""
    if root.is_file():
        raise UserError(f"{key}={root} is a file; give a folder, of an archive the one that it unpacks to")
    if not root.is_dir():
        raise UserError(f"{key}={root}: there is no such folder ({root.absolute()})")


def split_folders(root: Path, noun: str, used: Path | None = None) -> dict[Split, Path]:
    """Return the folders of the splits that are there; a line tells which others are left out.

    Args:
        root: Folder of the splits.
        noun: What the files are, such as `images`.
        used: Folder beside them that has another purpose.

    Raises:
        UserError: If `train` is missing.
    """
    check_folder("data.root", root)
    if not (root / "train").is_dir():
        raise UserError(
            f"data.root={root} must have a folder train with one folder of {noun} per class; {_instead(root)}"
        )
    _tell_beside(root, used)
    return {split: root / split for split in SPLITS if (root / split).is_dir()}


def _instead(root: Path) -> str:
    """Return what to do about a root without a folder `train`."""
    there = sorted(p.name for p in root.iterdir() if p.is_dir() and not is_hidden(p.name))
    if root.resolve().name in SPLITS:
        return f"give the folder above it: data.root={root.parent}"
    deeper = [name for name in there if (root / name / "train").is_dir()]  # archives have a folder of their own name
    if deeper:
        return f"give the folder in it: data.root={root / deeper[0]}"
    near = difflib.get_close_matches("train", [name.lower() for name in there], n=1)
    if near:
        return f"rename {next(name for name in there if name.lower() == near[0])} to train"
    if there:
        return f"it has {', '.join(map(printable, there))}: if these are the classes, move them into {root / 'train'}"
    return "it has no folders"


def has_classes(folder: Path) -> bool:
    """Return whether the folder of a split has a folder for some class."""
    return any(path.is_dir() and not is_hidden(path.name) for path in folder.iterdir())


def scan(places: Mapping[Split, Path], kind: FileKind, named: Split = "train") -> tuple[list[str], dict[Split, Found]]:
    """Return the class names, sorted, and the files of the splits.

    One line a split tells what is left out.

    Args:
        places: Folders of the splits.
        kind: Files that are looked for.
        named: Split whose folders name the classes.

    Raises:
        UserError: If files of a class are missing, or if the splits differ in classes.
    """
    folders = {split: _class_folders(place, kind.noun) for split, place in places.items()}
    classes = sorted(folders[named])
    if len(classes) < 2:
        place = places[named]
        raise UserError(f"{place} must have one folder per class, at least 2, got {len(classes)}: {classes}")
    found = {}
    for split, place in places.items():
        _check_classes(place, folders[split], classes, named)
        left_out = _beside_classes(place)
        one = Found([], [])
        for label, name in enumerate(classes):
            files = kind.below(folders[split][name], left_out)
            if not files:
                why = f" ({kind.told(left_out)} left out)" if left_out else ""
                raise UserError(
                    f"class folder {folders[split][name]} has no {kind.noun}{why}; add some or remove the folder"
                )
            one.paths.extend(files)
            one.labels.extend([label] * len(files))
        kind.tell(place, left_out)
        found[split] = one
    return classes, found


def _tell_beside(root: Path, used: Path | None) -> None:
    """Tell which folders beside the splits are left out: `valid` is not `val`."""
    beside = [path for path in root.iterdir() if path.is_dir() and path.name not in SPLITS]
    names = sorted(printable(path.name) for path in beside if not is_hidden(path.name) and path != used)
    if names:
        say(f"{root}: left out {', '.join(names)}; rename what is a split to train, val or test")


def _beside_classes(folder: Path) -> Counter[str]:
    """Return counts of what lies in the folder of a split and is no class."""
    left_out = Counter(f"hidden folder {p.name}" for p in folder.iterdir() if p.is_dir() and is_hidden(p.name))
    files = sum(not p.is_dir() and not is_hidden(p.name) for p in folder.iterdir())
    return left_out + Counter({"file outside of the class folders": files})


def _class_folders(folder: Path, noun: str) -> dict[str, Path]:
    """Return class name → folder. Names are compared as a reader sees them: composed accents, single blanks."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name)):
        shown = printable(path.name)
        if shown != path.name or not path.name.isprintable():
            raise UserError(f"the name of the class folder {shown!r} in {folder} is not printable UTF-8; rename it")
        name = as_seen(path.name)
        if not name:
            raise UserError(f"the name of the class folder {path.name!r} in {folder} is blank; rename it")
        if name in found:
            raise UserError(
                f"{folder} has two folders for the class {name!r}, {found[name].name!r} and {path.name!r}, whose names "
                f"differ in blanks or in how accents are written; put their {noun} into one"
            )
        found[name] = path
    return found


def _check_classes(folder: Path, found: dict[str, Path], classes: list[str], named: Split) -> None:
    if not found:
        raise UserError(f"{folder} has no folders of classes; fill it or remove it")
    missing, extra = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
    if missing or extra:
        what = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has also {', '.join(extra)}"] * bool(extra)
        raise UserError(f"{folder} must have the same classes as {named}, but it {' and '.join(what)}")
