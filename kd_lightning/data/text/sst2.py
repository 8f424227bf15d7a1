"""Stanford Sentiment Treebank, binary (Socher et al. 2013): 6,920 / 872 / 1,821 sentences of film reviews."""

import io
import re
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

from filelock import FileLock

from kd_lightning.data.module import Split
from kd_lightning.data.text.module import TextDataModule
from kd_lightning.data.text.table import Table, read_pairs
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.files import write_text

URL = "https://nlp.stanford.edu/sentiment/trainDevTestTrees_PTB.zip"
SIZES = {"train": 6920, "dev": 872, "test": 1821}
"""Sentences of each part that are not neutral."""
SILENCE = 10.0  # seconds after which a connection has failed
FILES: dict[Split, str] = {"train": "train.tsv", "val": "dev.tsv", "test": "test.tsv"}
_LEAF = re.compile(r"\(\d ([^()]+)\)")


class SST2DataModule(TextDataModule):
    """SST-2, from files of `sentence<TAB>label` with the labels 0 and 1.

    Args:
        root: Folder that holds, or will hold, `train.tsv`, `dev.tsv` and `test.tsv`. Without `dev.tsv`, validation is
            held out from `train.tsv`.
        common: Arguments of `TextDataModule`.
    """

    name = "sst2"

    def __init__(self, root: str | Path = "data/sst2", **common: Any) -> None:
        super().__init__(root, **common)

    def prepare_data(self) -> None:
        """Download the treebank (some 1 MB) unless its files are there. Raises UserError if that fails."""
        if not self.splits and not self._present():
            try:
                self._download()
            except (OSError, zipfile.BadZipFile, KeyError) as e:  # URLError is an OSError
                raise UserError(self._how_to_get(f"could not be downloaded ({e})")) from e
        super().prepare_data()

    def read(self) -> dict[Split, Table]:
        if not self._present():
            raise UserError(self._how_to_get("is missing"))
        return {split: read_pairs(path) for split, name in FILES.items() if (path := self.root / name).is_file()}

    def class_names(self, train: Table) -> dict[str, str]:
        return {"0": "negative", "1": "positive"}

    def _present(self) -> bool:
        return all((self.root / FILES[split]).is_file() for split in ("train", "test"))

    def _download(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f".{self.name}.lock"):
            if self._present():
                return
            with urllib.request.urlopen(URL, timeout=SILENCE) as answer:
                archive = zipfile.ZipFile(io.BytesIO(answer.read()))
            texts = {}
            for part in ("dev", "test", "train"):  # the last one that is looked for comes last
                lines = sentences(archive.read(f"trees/{part}.txt").decode())
                if len(lines) != SIZES[part]:
                    raise UserError(
                        self._how_to_get(f"is not as published: {URL} has {len(lines)} sentences in {part}")
                    )
                path = self.root / f"{part}.tsv"
                texts[path] = "".join(f"{text}\t{label}\n" for text, label in lines)
                if path.exists() and path.read_bytes() != texts[path].encode():  # sentences of the user's own
                    raise UserError(f"data.root: {path} is not SST-2's, and stays; give another data.root")
            for path, text in texts.items():
                write_text(path, text)

    def _how_to_get(self, what: str) -> str:
        return (
            f"SST-2 {what}; put train.tsv, dev.tsv and test.tsv, lines of sentence<TAB>label (0 negative, 1 positive), "
            f"into {self.root.absolute()}, or set data.root to the folder that has them"
        )


def sentences(trees: str) -> list[tuple[str, int]]:
    """Return sentence and label, 0 or 1, of trees in the format of the Penn Treebank; neutral ones are left out.

    The number at a tree's root is the sentiment: 0 and 1 are negative, 2 is neutral, 3 and 4 are positive.
    """
    found = []
    for tree in trees.splitlines():
        if tree.strip() and tree[1] != "2":
            words = " ".join(_LEAF.findall(tree)).replace("-LRB-", "(").replace("-RRB-", ")")
            found.append((words, int(tree[1] > "2")))
    return found
