"""Your own sentences: `root/train.tsv` (or .csv, .jsonl), and `val`, `test` likewise or held out from `train`."""

import os
from pathlib import Path
from typing import Any

from kd_lightning.data.class_folders import check_folder
from kd_lightning.data.find_files import printable
from kd_lightning.data.module import Split
from kd_lightning.data.text.module import SPLITS, TextDataModule
from kd_lightning.data.text.table import SUFFIXES, Table, read_table
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say


class TextFilesDataModule(TextDataModule):
    """Tables with a header, or JSON lines. The classes are the labels of `train`, sorted, numbers by their value.

    Args:
        root: Folder with the files.
        text_column: Column, or JSON key, of the sentence.
        label_column: That of the label.
        common: Arguments of `TextDataModule`.
    """

    name = "text_files"

    def __init__(
        self, root: str | Path, *, text_column: str = "text", label_column: str = "label", **common: Any
    ) -> None:
        super().__init__(root, **common)
        self.columns = str(text_column), str(label_column)
        if text_column == label_column:
            raise UserError(
                f"data.text_column and data.label_column must be different columns, got {text_column} twice"
            )

    def read(self) -> dict[Split, Table]:
        check_folder("data.root", self.root)
        found = {split: path for split in SPLITS if (path := self._file(split))}
        if "train" not in found:
            names = ", ".join(f"train{suffix}" for suffix in SUFFIXES)
            there = ", ".join(sorted(printable(path.name) for path in self.root.iterdir())[:5]) or "nothing"
            raise UserError(f"data.root={self.root} has none of the files {names}; it has {there}")
        tables = {path.name for path in self.root.iterdir() if path.suffix.lower() in SUFFIXES}
        if beside := sorted(tables - {path.name for path in found.values()}):
            told = ", ".join(map(printable, beside[:5])) + (" …" if len(beside) > 5 else "")
            say(f"data.root={self.root}: {told} left out; a split is train, val or test, in small letters")
        return {split: read_table(path, *self.columns) for split, path in found.items()}

    def _file(self, split: Split) -> Path | None:
        there = [path for suffix in SUFFIXES if os.path.lexists(path := self.root / f"{split}{suffix}")]
        if len(there) > 1:
            raise UserError(f"data.root={self.root} has {' and '.join(p.name for p in there)}; keep one of them")
        if there and not there[0].is_file():  # no other split is held out in its place
            raise UserError(f"{there[0]} is not a file but a folder, a pipe or a broken link")
        return there[0] if there else None

    def class_names(self, train: Table) -> dict[str, str]:
        labels = set(train.labels)
        if "" in labels:
            raise UserError(f"{train.path}, line {train.lines[train.labels.index('')]}: the label is empty")
        by_value = all(label.isdecimal() for label in labels)
        return {label: label for label in sorted(labels, key=lambda label: (int(label) if by_value else 0, label))}
