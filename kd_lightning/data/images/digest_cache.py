"""Digests of photos that an earlier process has read, so that each photo is read and decoded once."""

import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock

from kd_lightning.utils.console import say
from kd_lightning.utils.files import write_whole

SETTLED = 2_000_000_000
"""Nanoseconds for which a file must not have changed: within a tick of the clock, a second change leaves no trace."""
DIGEST = "S32"
"""128 bits in hexadecimal."""
Digests = np.ndarray[Any, np.dtype[np.bytes_]]


class Known(NamedTuple):
    """What is known of the photos at some positions.

    Attributes:
        digests: Hash of the content `[N]`; empty where unknown.
        sizes: Pixels for which the photo was decoded without a fault `[N]`; 0 if it was only read.
    """

    digests: Digests
    sizes: np.ndarray[Any, np.dtype[np.int32]]


def nothing(count: int) -> Known:
    """Return what is known of `count` photos that nobody has read."""
    return Known(np.zeros(count, DIGEST), np.zeros(count, np.int32))


class DigestCache:
    """A table of photos, by path, length and times of change.

    Args:
        path: The file, which need not exist. One that is damaged counts as empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys, self._known = np.zeros(0, DIGEST), nothing(0)
        try:
            with open(path, "rb") as f, np.load(f, allow_pickle=False) as table:
                keys, known = table["keys"], Known(table["digests"], table["sizes"])
        except (OSError, ValueError, KeyError, EOFError, BadZipFile):
            return
        if keys.dtype == known.digests.dtype == DIGEST and len(keys) == len(known.digests) == len(known.sizes):
            self._keys, self._known = keys, known

    def find(self, keys: Digests) -> Known:
        """Return what is known of the photos with these `keys` `[N]`."""
        _, here, there = np.intersect1d(keys, self._keys, return_indices=True)  # no key is kept that is empty
        found = nothing(len(keys))
        found.digests[here], found.sizes[here] = self._known.digests[there], self._known.sizes[there]
        return found

    def write(self, keys: Digests, known: Known) -> None:
        """Replace the table; photos without key or digest are left out. A disk that is full leaves the old one."""
        kept = np.flatnonzero((keys != b"") & (known.digests != b""))
        kept = kept[np.argsort(keys[kept])]

        def save(partial: Path) -> None:
            with open(partial, "wb") as f:
                np.savez(f, keys=keys[kept], digests=known.digests[kept], sizes=known.sizes[kept])

        try:
            write_whole(self._path, save)
        except OSError as e:
            say(f"digests of the photos are not kept: {e}")


@contextmanager
def opened(folder: Path | None, root: Path) -> Iterator[DigestCache | None]:
    """Give the table of the photos below `root`, while other processes, such as other ranks, wait for it.

    Args:
        folder: Where tables are kept; None, or a folder that cannot be written, for no table.
        root: Folder of the photos.
    """
    if folder is None or not root.is_dir():
        yield None
        return
    path = folder / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]}.npz"
    lock = FileLock(path.with_suffix(".lock"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as e:
        say(f"digests of the photos are not kept: {e}")
        yield None
        return
    try:
        yield DigestCache(path)
    finally:
        lock.release()


def file_keys(paths: Sequence[Path]) -> Digests:
    """Return a hash of path, length and times of change of each file `[N]`; empty for one that has just changed."""
    newest = time.time_ns() - SETTLED

    def key(path: Path) -> bytes:
        try:
            found = path.stat()
        except OSError:
            return b""
        if max(found.st_mtime_ns, found.st_ctime_ns) > newest:
            return b""
        facts = (
            os.fsencode(os.path.abspath(path)),
            b"%d %d %d" % (found.st_size, found.st_mtime_ns, found.st_ctime_ns),
        )
        return hashlib.sha256(b"\0".join(facts)).hexdigest()[:32].encode()

    return np.array(list(map(key, paths)), DIGEST)
