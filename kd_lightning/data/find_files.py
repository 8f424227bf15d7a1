"""Files of one kind below a folder, and counts of what else is there."""

import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say

SYSTEM_FOLDERS = (
    *("__MACOSX", "@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"),
    "__pycache__",
)
"""Folders that archives, servers and systems leave behind."""
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

    def below(self, folder: Path, left_out: Counter[str]) -> list[Path]:
        """Return the files at any depth below `folder`, sorted; count in `left_out` what else is there."""
        found, places = [], [os.fspath(folder)]
        while places:
            try:
                with os.scandir(places.pop()) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False) and not is_hidden(entry.name):
                            places.append(entry.path)
                        elif what := self._why_not(entry):
                            left_out[what] += 1
                        else:
                            found.append(Path(entry.path))
            except OSError as error:
                left_out[f"folder that cannot be read ({error.strerror})"] += 1
        return sorted(found)

    def named(self, words: Sequence[str]) -> list[Path]:
        """Return files as named, and all those below each folder, sorted. Raises UserError for a folder without any."""
        found: list[Path] = []
        for path in map(Path, words):
            left_out: Counter[str] = Counter()
            files = self.below(path, left_out) if path.is_dir() else [path]
            if not files:
                why = f" ({self.told(left_out)} left out)" if left_out else ""
                raise UserError(f"no {self.noun} in the folder {path}{why}")
            found += files
        return found

    def _why_not(self, entry: "os.DirEntry[str]") -> str:
        """Return in a few words what an entry is that is none of the files; empty for one of them."""
        suffix = os.path.splitext(entry.name)[1].lower()
        if entry.is_dir():
            return "linked folder" if entry.is_symlink() else f"hidden folder {entry.name}"
        if entry.name.startswith("."):
            return "hidden file"
        if suffix not in self.suffixes:
            return f"{suffix} file" if suffix else "file without a suffix"
        if not entry.is_file():  # reading a pipe would wait for ever
            return "broken link" if entry.is_symlink() else "pipe or socket"
        return ""


def is_hidden(name: str) -> bool:
    """Return whether a folder of this name is not the user's."""
    return name.startswith(".") or name in SYSTEM_FOLDERS


def as_seen(name: str) -> str:
    """Return the name of a class as a reader sees it: composed accents, single blanks."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def printable(name: str | Path) -> str:
    """Return a file name whose bytes that are not UTF-8 are escaped."""
    return os.fsencode(name).decode(errors="backslashreplace")
