"""Pictures below a folder, and counts of what else is there."""

import os
from collections import Counter
from pathlib import Path

from PIL import Image

from kd_lightning.data.images.photos import printable

SYSTEM_FOLDERS = (
    *("__MACOSX", "@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"),
    "__pycache__",
)
"""Folders that archives, servers and systems leave behind."""
NO_PICTURES = ("BUFR", "GRIB", "HDF5", "MPEG")
"""Formats that PIL knows by name and cannot decode."""
SHOWN = 8  # kinds of files that are left out
HEIC = (".heic", ".heif")


def pictures(folder: Path, left_out: Counter[str]) -> list[Path]:
    """Return the pictures at any depth below `folder`, sorted; count in `left_out` what else is there."""
    suffixes = {
        suffix
        for suffix, form in Image.registered_extensions().items()
        if form in Image.OPEN and form not in NO_PICTURES
    }
    found, places = [], [os.fspath(folder)]
    while places:
        try:
            with os.scandir(places.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False) and not is_hidden(entry.name):
                        places.append(entry.path)
                    elif what := _why_not(entry, suffixes):
                        left_out[what] += 1
                    else:
                        found.append(Path(entry.path))
        except OSError as error:
            left_out[f"folder that cannot be read ({error.strerror})"] += 1
    return sorted(found)


def _why_not(entry: "os.DirEntry[str]", suffixes: set[str]) -> str:
    """Return in a few words what an entry is that is no picture; empty for a picture."""
    suffix = os.path.splitext(entry.name)[1].lower()
    if entry.is_dir():
        return "linked folder" if entry.is_symlink() else f"hidden folder {entry.name}"
    if entry.name.startswith("."):
        return "hidden file"
    if suffix not in suffixes:
        return f"{suffix} file" if suffix else "file without a suffix"
    if not entry.is_file():  # reading a pipe would wait for ever
        return "broken link" if entry.is_symlink() else "pipe or socket"
    return ""


def is_hidden(name: str) -> bool:
    """Return whether a folder of this name is not the user's."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def told(left_out: Counter[str]) -> str:
    """Return the most frequent kinds of files that are left out, with their counts."""
    parts = []
    for what, count in left_out.most_common(SHOWN):
        parts.append(f"{count} × {printable(what)}")
        if what.removesuffix(" file") in HEIC:
            parts[-1] += " (pip install 'kd_lightning[heic]' reads them)"
    rest = sum(left_out.values()) - sum(count for _, count in left_out.most_common(SHOWN))
    return ", ".join([*parts, *[f"{rest} others"] * bool(rest)])
