"""Folders of files `<split>/<class>/*`: which files they hold, and what is left out."""

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kd_lightning.data.module import Split
from kd_lightning.utils.checks import UserError, did_you_mean
from kd_lightning.utils.console import say

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")
SHOWN = 8  # kinds of files that are left out


class FileKind(NamedTuple):
    """The files that are looked for; all others are left out and counted."""

    noun: str
    """Several of them, such as `images`."""
    suffixes: Collection[str]
    """In small letters, with the dot."""
    hints: Mapping[str, str] = {}
    """Suffix of files that are left out → what would read them."""

    def told(self, left_out: Counter[str]) -> str:
        """Return the most frequent kinds of files that are left out, with their counts."""
        parts = []
        for what, count in left_out.most_common(SHOWN):
            hint = self.hints.get(what.removesuffix(" file"))
            parts.append(f"{count} × {printable(what)}" + (f" ({hint})" if hint else ""))
        rest = sum(left_out.values()) - sum(count for _, count in left_out.most_common(SHOWN))
        return ", ".join([*parts, *[f"{rest} others"] * bool(rest)])

    def tell(self, folder: Path, left_out: Counter[str]) -> None:
        """Say in one line what is left out, if something is."""
        if left_out:
            say(f"{folder}: left out {self.told(left_out)}")


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
    if not root.is_dir():
        raise UserError(f"{key}={root}: there is no such folder ({root.absolute()})")


def split_folders(root: Path, noun: str) -> dict[Split, Path]:
    """Return the folders of the splits that are there. Raises UserError if `train` is not."""
    check_folder("data.root", root)
    if not (root / "train").is_dir():
        there = sorted(p.name for p in root.iterdir() if p.is_dir())
        hint = did_you_mean("train", there) or f"; it has {', '.join(there) or 'no folders'}"
        raise UserError(f"data.root={root} must have a folder train with one folder of {noun} per class{hint}")
    return {split: root / split for split in SPLITS if (root / split).is_dir()}


def scan(places: Mapping[Split, Path], kind: FileKind) -> tuple[list[str], dict[Split, Found]]:
    """Return the class names (those of `train`, sorted) and the files of the splits.

    One line a split tells what is left out.

    Raises:
        UserError: If files of a class are missing, or if the splits differ in classes.
    """
    folders = {split: _class_folders(place, kind.noun) for split, place in places.items()}
    classes = sorted(folders["train"])
    if len(classes) < 2:
        place = places["train"]
        raise UserError(f"{place} must have one folder per class, at least 2, got {len(classes)}: {classes}")
    found = {}
    for split, place in places.items():
        _check_classes(place, folders[split], classes)
        left_out: Counter[str] = Counter(_system_folders(place))
        one = Found([], [])
        for label, name in enumerate(classes):
            files = files_below(folders[split][name], kind.suffixes, left_out)
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


def files_below(folder: Path, suffixes: Collection[str], left_out: Counter[str]) -> list[Path]:
    """Return the files at any depth below `folder`, sorted; count in `left_out` what else is there."""
    found = []
    for place, folders, files in os.walk(folder):
        for name in list(folders):
            linked = os.path.islink(os.path.join(place, name))
            if linked or _hidden(name):
                left_out["linked folder" if linked else f"hidden folder {name}"] += 1
                folders.remove(name)
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                left_out["hidden file"] += 1
            elif suffix in suffixes:
                found.append(Path(place, name))
            else:
                left_out[f"{suffix} file" if suffix else "file without a suffix"] += 1
    return sorted(found)


def printable(name: str | Path) -> str:
    """Return a file name whose bytes that are not UTF-8 are escaped."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _system_folders(folder: Path) -> list[str]:
    return [f"hidden folder {p.name}" for p in folder.iterdir() if p.is_dir() and _hidden(p.name)]


def _class_folders(folder: Path, noun: str) -> dict[str, Path]:
    """Return class name → folder. Names are compared as a reader sees them: composed accents, single blanks."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_dir() and not _hidden(p.name)):
        shown = printable(path.name)
        if shown != path.name or not path.name.isprintable():
            raise UserError(f"the name of the class folder {shown!r} in {folder} is not printable UTF-8; rename it")
        name = " ".join(unicodedata.normalize("NFC", path.name).split())
        if not name:
            raise UserError(f"the name of the class folder {path.name!r} in {folder} is blank; rename it")
        if name in found:
            raise UserError(
                f"{folder} has two folders for the class {name!r}, {found[name].name!r} and {path.name!r}, whose names "
                f"differ in blanks or in how accents are written; put their {noun} into one"
            )
        found[name] = path
    return found


def _check_classes(folder: Path, found: dict[str, Path], classes: list[str]) -> None:
    missing, extra = sorted(set(classes) - set(found)), sorted(set(found) - set(classes))
    if missing or extra:
        what = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has also {', '.join(extra)}"] * bool(extra)
        raise UserError(f"{folder} must have the same classes as train, but it {' and '.join(what)}")
