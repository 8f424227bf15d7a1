"""Folders of photos `<split>/<class>/*`: scanning, what is left out, and damaged or repeated files."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from kd_lightning.data.images.decode import center_box, read_square, reason
from kd_lightning.data.module import Split
from kd_lightning.types import UNLABELED
from kd_lightning.utils.checks import UserError, did_you_mean
from kd_lightning.utils.console import say

SPLITS: tuple[Split, ...] = ("train", "val", "test")
SYSTEM_FOLDERS = ("__MACOSX", "@eaDir", "$RECYCLE.BIN")
SHOWN = 8  # kinds of files that are left out
HEIC = (".heic", ".heif")
Digests = np.ndarray[Any, np.dtype[np.bytes_]]
_DIGEST = "S32"  # 128 bits in hexadecimal
T = TypeVar("T")


class Photos:
    """Files with their class indices.

    All paths are one string of bytes: a worker process does not copy a million objects.

    Args:
        names: Paths as bytes.
        labels: Class index of each.
        digests: Hashes of the contents, if they are known.
    """

    def __init__(self, names: Sequence[bytes] = (), labels: Any = (), digests: Digests | None = None) -> None:
        self._names = b"".join(names)
        self._ends = np.cumsum([0, *map(len, names)])
        self.labels = np.asarray(labels, np.int64)
        self._digests = digests

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Path, int]:
        if not 0 <= i < len(self):
            raise IndexError(i)
        return self.path(i), int(self.labels[i])

    def __iter__(self) -> Iterator[tuple[Path, int]]:
        return map(self.__getitem__, range(len(self)))

    def _name(self, i: Any) -> bytes:
        return self._names[self._ends[i] : self._ends[i + 1]]

    def path(self, i: int) -> Path:
        """Return the file at position `i`."""
        return Path(os.fsdecode(self._name(i)))

    def paths(self) -> list[Path]:
        """Return all files."""
        return list(map(self.path, range(len(self))))

    def select(self, positions: Any) -> "Photos":
        """Return the photos at `positions` `[N]`, an array of numbers or a mask."""
        positions = np.asarray(positions)
        kept = np.flatnonzero(positions) if positions.dtype == bool else positions
        digests = None if self._digests is None else self._digests[kept]
        return Photos([self._name(i) for i in kept], self.labels[kept], digests)

    def relabel(self, labels: Any) -> "Photos":
        """Return the same files with other `labels` `[N]`."""
        return Photos([self._name(i) for i in range(len(self))], labels, self._digests)

    def __add__(self, other: "Photos") -> "Photos":
        names = [part._name(i) for part in (self, other) for i in range(len(part))]
        known = self._digests is not None and other._digests is not None
        digests = np.concatenate([self.digests, other.digests]) if known else None
        return Photos(names, np.concatenate([self.labels, other.labels]), digests)

    @property
    def digests(self) -> Digests:
        """Hash of the content of every file `[N]`; each file is read once. Raises UserError if one cannot be read."""
        if self._digests is None:
            self._digests = np.array(_in_threads(_digest, self.paths()), _DIGEST)
        return self._digests

    def verify(self, size: int) -> list[str]:
        """Decode every file once, for images of `size` pixels, and keep its digest; return what is damaged."""
        checked = _in_threads(partial(_check, size=size), self.paths())
        self._digests = np.array([digest for digest, _ in checked], _DIGEST)
        return [f"{_printable(self.path(i))} ({why})" for i, (_, why) in enumerate(checked) if why]

    def fingerprint(self, root: Path) -> str:
        """Return a hash of the paths below `root` and the contents of all files."""
        names = [os.fsencode(path.relative_to(root)) for path in self.paths()]
        return hashlib.sha256(b"\0".join([*names, self.digests.tobytes()])).hexdigest()


def folder_path(key: str, value: Any) -> Path:
    """Return the folder that the user gave as `key`. Raises UserError if it is not a path."""
    if not isinstance(value, str | Path):
        raise UserError(f"{key} must be a folder, got {value!r}")
    return Path(value).expanduser()


def scan(root: Path) -> tuple[list[str], dict[Split, Photos]]:
    """Return the class names (those of `train`, sorted) and the photos of the splits that are there.

    One line a split tells what is left out.

    Raises:
        UserError: If the root, `train`, or images of a class are missing, or if the splits differ in classes.
    """
    _check_folder("data.root", root)
    if not (root / "train").is_dir():
        there = sorted(p.name for p in root.iterdir() if p.is_dir())
        hint = did_you_mean("train", there) or f"; it has {', '.join(there) or 'no folders'}"
        raise UserError(f"data.root={root} must have a folder train with one folder of images per class{hint}")
    folders = {split: _class_folders(root / split) for split in SPLITS if (root / split).is_dir()}
    classes = sorted(folders["train"])
    if len(classes) < 2:
        raise UserError(f"{root / 'train'} must have one folder per class, at least 2, got {len(classes)}: {classes}")
    photos = {}
    for split, found in folders.items():
        _check_classes(root / split, found, classes)
        left_out: Counter[str] = Counter(_system_folders(root / split))
        paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(classes):
            files = _pictures(found[name], left_out)
            if not files:
                why = f" ({_told(left_out)} left out)" if left_out else ""
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
    paths = find_pictures(root)
    if not paths:
        raise UserError(f"data.unlabeled_root={root} has no images")
    return Photos([os.fsencode(path) for path in paths], [UNLABELED] * len(paths))


def find_pictures(folder: Path) -> list[Path]:
    """Return the pictures at any depth below `folder`, sorted; a line tells what is left out."""
    left_out: Counter[str] = Counter()
    paths = _pictures(folder, left_out)
    _tell(folder, left_out)
    return paths


def picture_suffixes() -> set[str]:
    """Return the suffixes of files that can be decoded here, in lower case with their dot."""
    return {suffix for suffix, form in Image.registered_extensions().items() if form in Image.OPEN}


def _check_folder(key: str, root: Path) -> None:
    if not root.is_dir():
        raise UserError(f"{key}={root}: there is no such folder ({root.absolute()})")


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in SYSTEM_FOLDERS


def _system_folders(folder: Path) -> list[str]:
    return [f"hidden folder {p.name}" for p in folder.iterdir() if p.is_dir() and _hidden(p.name)]


def _class_folders(folder: Path) -> dict[str, Path]:
    """Return class name → folder. Names are compared as a reader sees them: composed accents, single blanks."""
    found: dict[str, Path] = {}
    for path in sorted(p for p in folder.iterdir() if p.is_dir() and not _hidden(p.name)):
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


def _pictures(folder: Path, left_out: Counter[str]) -> list[Path]:
    """Return the pictures at any depth below `folder`, sorted; count in `left_out` what else is there."""
    suffixes = picture_suffixes()
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


def _tell(folder: Path, left_out: Counter[str]) -> None:
    if left_out:
        say(f"{folder}: left out {_told(left_out)}")


def _told(left_out: Counter[str]) -> str:
    parts = []
    for what, count in left_out.most_common(SHOWN):
        parts.append(f"{count} × {_printable(what)}")
        if what.removesuffix(" file") in HEIC:
            parts[-1] += " (pip install pillow-heif reads them)"
    rest = sum(left_out.values()) - sum(count for _, count in left_out.most_common(SHOWN))
    return ", ".join([*parts, *[f"{rest} others"] * bool(rest)])


def _printable(name: str | Path) -> str:
    return os.fsencode(name).decode(errors="backslashreplace")


def verify(parts: Sequence[Photos], size: int) -> None:
    """Decode every file of `parts` once, as a training on images of `size` pixels does.

    Raises:
        UserError: If files are damaged; the message names some.
    """
    damaged = [what for part in parts for what in part.verify(size)]
    if damaged:
        more = f" and {len(damaged) - 5} more" if len(damaged) > 5 else ""
        raise UserError(
            f"cannot read {', '.join(damaged[:5])}{more}; remove or replace (data.verify=false skips this check)"
        )


def check_repeats(splits: Mapping[str, Photos]) -> None:
    """Look for pictures with equal bytes: those in two classes are told.

    Args:
        splits: Photos of the splits that are kept apart.

    Raises:
        UserError: If a picture is in two splits; the message names some.
    """
    for (a, one), (b, two) in combinations(splits.items(), 2):
        repeated = np.flatnonzero(np.isin(two.digests, one.digests))
        if len(repeated):
            copy = int(repeated[0])
            twin = one.path(int(np.flatnonzero(one.digests == two.digests[copy])[0]))
            more = f", and {len(repeated) - 1} more" if len(repeated) > 1 else ""
            raise UserError(
                f"{b} has pictures of {a}: {_printable(two.path(copy))} is {_printable(twin)}{more}; a picture "
                "belongs into one split only, remove the copies"
            )
    for split, photos in splits.items():
        _, first, inverse = np.unique(photos.digests, return_index=True, return_inverse=True)
        other = np.flatnonzero(photos.labels != photos.labels[first][inverse])
        if len(other):
            i = int(other[0])
            twin = photos.path(int(first[inverse[i]]))
            say(
                f"warning: {len(other)} pictures of {split} have a copy in another class, such as "
                f"{_printable(photos.path(i))} and {_printable(twin)}; a model cannot tell them apart"
            )


def _in_threads(function: Callable[[Path], T], paths: Sequence[Path]) -> list[T]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing and decoding let other threads run
        return list(pool.map(function, paths))


def _digest(path: Path) -> bytes:
    try:
        return _hash(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {_printable(path)}: {error.strerror}") from error


def _hash(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest()[:32].encode()


def _check(path: Path, size: int) -> tuple[bytes, str]:
    """Return the digest of a file and why it cannot be decoded, or an empty string."""
    digest = b""
    try:
        content = path.read_bytes()
        digest = _hash(content)
        read_square(content, size, partial(center_box, size=size), exact=False)
    except Exception as error:  # PIL's plugins raise many kinds
        return digest, reason(error)
    return digest, ""
