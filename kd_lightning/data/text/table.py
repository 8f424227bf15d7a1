"""Files of labelled sentences: tables (TSV, CSV) and JSON lines, in UTF-8."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unicodedata import category

from kd_lightning.data.find_files import as_seen
from kd_lightning.utils.checks import UserError, did_you_mean

SUFFIXES = (".tsv", ".csv", ".jsonl")


@dataclass
class Table:
    """Sentences of one split with their labels as they are written."""

    path: Path
    texts: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    """Line of each in the file, from 1."""
    empty: int = 0
    """Number of samples that were left out, as their sentence is empty."""

    def add(self, line: int, text: str, label: str) -> None:
        """Add a sample, unless its sentence is blank. Raises UserError if its label cannot be shown."""
        if not text.strip():
            self.empty += 1
            return
        label = as_seen(label)
        if any(category(character) == "Cc" for character in label):
            raise UserError(f"{self.path}, line {line}: the label {label!r} has a control character")
        self.texts.append(text)
        self.labels.append(label)
        self.lines.append(line)


def text_path(key: str, value: Any) -> Path:
    """Return the folder that the user gave as `key`. Raises UserError if it is not a path."""
    if not isinstance(value, str | Path):
        raise UserError(f"{key} must be a folder, got {value!r}")
    return Path(value).expanduser()


def read_text(path: Path) -> str:
    """Return the content of a file in UTF-8, with or without a byte order mark. Raises UserError."""
    try:
        content = path.read_bytes()
    except OSError as e:
        raise UserError(f"cannot read {path}: {e.strerror}") from e
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = content[: e.start].count(b"\n") + 1
        raise UserError(f"{path}, line {line}: not UTF-8; save the file in UTF-8") from e


def is_unicode(text: str) -> bool:
    """Return whether a text can be written in UTF-8: half of a surrogate pair cannot, nor bytes of a terminal."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_pairs(path: Path) -> Table:
    """Read lines of `sentence<TAB>label` without a header. Raises UserError."""
    table = Table(path)
    for number, line in _lines(path):
        text, tab, label = line.rpartition("\t")
        if not tab:
            raise UserError(f"{path}, line {number}: there is no tab; each line is sentence<TAB>label")
        table.add(number, text, label)
    return table


def read_table(path: Path, text: str, label: str) -> Table:
    """Read a table with a header (.tsv, .csv) or JSON lines (.jsonl).

    Args:
        path: The file.
        text: Column of the sentence.
        label: Column of the label.

    Raises:
        UserError: If it cannot be read or has no such columns; the message names the line.
    """
    return _read_json_lines(path, text, label) if path.suffix == ".jsonl" else _read_columns(path, text, label)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, line) of those that are not blank."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield number, line.rstrip("\r")


def _read_columns(path: Path, text: str, label: str) -> Table:
    whole = read_text(path)
    csv.field_size_limit(max(csv.field_size_limit(), len(whole)))  # a long sentence is cut later, by its tokens
    content = io.StringIO(whole, newline="")
    if path.suffix == ".tsv":
        reader = csv.reader(content, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(content, strict=True)
    table, header, first = Table(path), None, 1
    try:
        for row in reader:
            first = reader.line_num + 1  # of the next row
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = [cell.strip() for cell in row]
                where = [_column(path, header, key, name) for key, name in (("text", text), ("label", label))]
            elif len(row) != len(header):
                raise UserError(f"{path}, line {reader.line_num}: {len(row)} columns, but the header has {len(header)}")
            else:
                table.add(reader.line_num, *(row[i] for i in where))
    except csv.Error as e:
        last = reader.line_num
        if first < last:
            raise UserError(f"{path}, lines {first} to {last}: {e}; a quote may be missing") from e
        raise UserError(f"{path}, line {last}: {e}") from e
    return table


def _column(path: Path, header: list[str], key: str, name: str) -> int:
    if header.count(name) != 1:
        what = "twice" if name in header else f"not{did_you_mean(name, header)}"
        raise UserError(f"data.{key}_column={name}: {path} has it {what}; its header is {', '.join(header)[:200]}")
    return header.index(name)


def _read_json_lines(path: Path, text: str, label: str) -> Table:
    table = Table(path)
    for number, line in _lines(path):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as e:
            raise UserError(f"{path}, line {number}: not JSON ({e})") from e
        if not isinstance(values, dict):
            kind = type(values).__name__
            raise UserError(f"{path}, line {number}: must be an object with the keys {text} and {label}, got a {kind}")
        for key, name in (("text", text), ("label", label)):
            if name not in values:
                has = ", ".join(values)[:200]
                raise UserError(f"data.{key}_column={name}: {path}, line {number}, has no such key; its keys are {has}")
        if not isinstance(values[text], str) or not isinstance(values[label], str | int):
            raise UserError(f"{path}, line {number}: {text} must be a string, and {label} a string or a whole number")
        if not is_unicode(f"{values[text]}{values[label]}"):
            raise UserError(f"{path}, line {number}: half of a surrogate pair, as \\ud800, is no character")
        table.add(number, values[text], str(values[label]))
    return table
