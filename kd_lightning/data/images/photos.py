"""A list of picture files with class indices, and the digests of their contents."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from kd_lightning.data.find_files import printable
from kd_lightning.data.images.decode import center_box, read_square, reason
from kd_lightning.data.images.digest_cache import DIGEST, Digests
from kd_lightning.utils.checks import UserError

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
            self._digests = read_all(self.paths())
        return self._digests

    @digests.setter
    def digests(self, digests: Digests) -> None:
        self._digests = digests

    def fingerprint(self, root: Path) -> str:
        """Return a hash of the paths below `root` and the contents of all files."""
        names = [os.fsencode(path.relative_to(root)) for path in self.paths()]
        return hashlib.sha256(b"\0".join([*names, self.digests.tobytes()])).hexdigest()


def decode_all(paths: Sequence[Path], size: int) -> tuple[Digests, list[str]]:
    """Decode files for images of `size` pixels; return the hash of the content of each and what is damaged about it."""
    checked = _in_threads(partial(_check, size=size), paths)
    return np.array([digest for digest, _ in checked], DIGEST), [why for _, why in checked]


def read_all(paths: Sequence[Path]) -> Digests:
    """Return the hash of the content of each file. Raises UserError if one cannot be read."""
    return np.array(_in_threads(_digest, paths), DIGEST)


def _in_threads(function: Callable[[Path], T], paths: Sequence[Path]) -> list[T]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing and decoding let other threads run
        return list(pool.map(function, paths))


def _digest(path: Path) -> bytes:
    try:
        return _hash(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {printable(path)}: {error.strerror}") from error


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
