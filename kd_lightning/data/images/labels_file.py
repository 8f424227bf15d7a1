"""Labels of photos that lie in no folders of classes: a JSON file that names the classes, and val and test."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from kd_lightning.data.find_files import printable
from kd_lightning.data.images.photos import Photos
from kd_lightning.data.module import Split
from kd_lightning.utils.checks import UserError, did_you_mean
from kd_lightning.utils.files import write_text

KEY = "data.labels"
_ENTRIES = ("named_by", "classes", "val", "test")


@dataclass(frozen=True)
class Labels:
    """Classes, and the photos that are held out; all others are training images without a label."""

    classes: list[str]
    val: Mapping[str, str] = field(default_factory=dict)
    """File in `train` → class."""
    test: Mapping[str, str] = field(default_factory=dict)
    """Likewise."""
    named_by: str = ""
    """Who said so first."""

    def fingerprint(self) -> str:
        """Return 16 hex digits: equal if and only if the same files have the same classes."""
        said = asdict(self) | {"named_by": ""}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    def divide(self, folder: Path, photos: Photos) -> dict[Split, Photos]:
        """Return the splits of the photos in `folder`. Raises UserError if a file is not there."""
        place = {path.name: i for i, path in enumerate(photos.paths())}
        parts: dict[Split, Photos] = {}
        held: list[int] = []
        splits: dict[Split, Mapping[str, str]] = {"val": self.val, "test": self.test}
        for split, files in splits.items():
            files = dict(sorted(files.items()))
            if lacks := [name for name in files if name not in place]:
                more = f" and {len(lacks) - 1} more" if len(lacks) > 1 else ""
                raise UserError(f"{KEY}: {split} names {printable(lacks[0])}{more}, which {folder} has not")
            rows = [place[name] for name in files]
            parts[split] = photos.select(np.array(rows, np.int64)).relabel(
                [self.classes.index(name) for name in files.values()]
            )
            held += rows
        return {"train": photos.select(np.setdiff1d(np.arange(len(photos)), held)), **parts}


def write_labels(path: Path, labels: Labels) -> None:
    """Write `labels` for a reader who may correct them. Raises FileExistsError if the file is there."""
    text = json.dumps({"named_by": labels.named_by} | asdict(labels), indent=1, ensure_ascii=False) + "\n"
    write_text(path, text.encode("utf-8", "backslashreplace").decode(), exclusive=True)  # names need not be UTF-8


def read_labels(path: Path) -> Labels:
    """Return what `write_labels` wrote, or a person. Raises UserError if it is something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as e:
        raise UserError(f"{KEY}={path}: {e.strerror}; give its place with {KEY}=PATH") from e
    except (ValueError, RecursionError) as e:
        raise UserError(f"{KEY}={path} is no JSON file: {e}") from e
    if not isinstance(found, dict) or not _is_names(found.get("classes")):
        raise UserError(f"{KEY}={path} must have a list of two or more different names as classes")
    if other := [name for name in found if name not in _ENTRIES]:
        raise UserError(
            f"{KEY}={path}: {other[0]!r} is none of {', '.join(_ENTRIES)}{did_you_mean(other[0], _ENTRIES)}"
        )
    for split in ("val", "test"):
        files = found.get(split, {})
        if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
            raise UserError(f"{KEY}={path}: {split} must be {{file: class, …}}")
        for file, name in files.items():
            if name not in found["classes"]:
                raise UserError(
                    f"{KEY}={path}: {split} says that {printable(file)} is {name!r}, which is none of its classes"
                    f"{did_you_mean(name, found['classes'])}"
                )
    if not found.get("test"):
        raise UserError(f"{KEY}={path} names no test image to measure the student on")
    if twice := set(found.get("val", {})) & set(found["test"]):
        raise UserError(f"{KEY}={path}: {printable(sorted(twice)[0])} is in val and in test; leave it in one")
    return Labels(found["classes"], found.get("val", {}), found["test"], str(found.get("named_by", "")))


def _is_names(value: object) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
        and len(value) > 1
    )
