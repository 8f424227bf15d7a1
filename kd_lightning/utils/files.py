"""Writing of files whole or not at all, and their checksums."""

import errno
import hashlib
import os
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def write_text(path: Path, text: str, exclusive: bool = False) -> None:
    """Write a text file, whole or not at all.

    Raises:
        FileExistsError: With `exclusive`, if it exists.
    """

    write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"), exclusive)


def write_whole(
    path: Path, write: Callable[[Path], T], exclusive: bool = False, before: Callable[[], None] | None = None
) -> T:
    """Let `write` fill a file beside `path`, then make it `path` in one step; a crash leaves the old file or the new.

    Returns what `write` returned.

    Args:
        path: The file.
        write: Is given the name of the file beside it, which has the same suffix.
        exclusive: `path` must not exist.
        before: Called when the new file is whole and on the disk, before it takes the name.

    Raises:
        FileExistsError: With `exclusive`, if `path` exists.
        OSError: If it cannot be written; its `filename` is `path`.
    """
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        partial.touch()  # an unwritable place is found before the work
        mode = partial.stat().st_mode
        written = write(partial)
        partial.chmod(mode)  # safetensors keeps its files to their owner
        flush(partial)
        if before is not None:
            before()
        if exclusive:
            os.link(partial, path)
        else:
            partial.replace(path)
        flush(path.parent)  # the name, too
        return written
    except OSError as e:
        if e.filename is None or Path(e.filename) == partial:  # a full disk names no file
            e.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as e:
        if e.errno != errno.EINVAL:  # some network file systems cannot flush a folder
            raise
    finally:
        os.close(descriptor)


def broken_entry(path: Path) -> str | None:
    """Return the first entry of a zip archive (`.ckpt`, `.pt`, `.npz`) whose checksum is wrong; None if all are right.

    torch and numpy write checksums, but torch does not read them. A file of another kind has none.

    Raises:
        zipfile.BadZipFile: If the archive is cut or otherwise not readable.
    """
    with open(path, "rb") as f:
        if f.read(4) != b"PK\x03\x04":
            return None
    with zipfile.ZipFile(path) as archive:
        return archive.testzip()


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while part := f.read(2**24):
            digest.update(part)
    return digest.hexdigest()
