"""Base class of all data sets of sentences."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.few_labels import FewLabels
from kd_lightning.data.hold_out import check_classes, hold_out, tell_two_classes
from kd_lightning.data.module import Split
from kd_lightning.data.subset import Subset
from kd_lightning.data.text.pretrained import OwnTokens, read_tokenizer
from kd_lightning.data.text.ragged import RaggedTokens
from kd_lightning.data.text.table import Table, text_path
from kd_lightning.data.text.tokens import KINDS, PADDING, Tokenize, padded
from kd_lightning.data.translation import Translation
from kd_lightning.types import Batch
from kd_lightning.utils.checks import UserError, choice, integer, number
from kd_lightning.utils.console import say
from kd_lightning.utils.hub import is_hub

EXAMPLE = 32
"""Tokens of a sentence on which sizes and latencies are measured."""
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class TextDataModule(FewLabels):
    """Sentences: `Batch.x` is `{"ids": int64 [B, L], "mask": bool [B, L]}`, filled up with `padding`.

    Args:
        root: Folder of the files.
        tokenizer: `words` or `pieces`, see `Tokenize.fit`; or `hf/NAME` or `hf/FOLDER`, that of a pretrained network.
        vocabulary: Most tokens, with padding and unknown; fitted on the training split alone, as is `lowercase`.
        lowercase: Make letters small and take accents off.
        max_length: Tokens that are kept of a sentence.
        val_size: Fraction of the training file that is held out, stratified, if there is no file for validation; 0 for
            none.
        test_size: Likewise for the test.
        common: Arguments of `FewLabels` and `DataModule`.
    """

    num_views = 1
    cheaper = "shorter sentences (data.max_length=32), a smaller student (model.student=text_bag)"

    def __init__(
        self,
        root: str | Path,
        *,
        tokenizer: str = "words",
        vocabulary: int = 8000,
        lowercase: bool = True,
        max_length: int = 64,
        val_size: float = 0.1,
        test_size: float = 0.1,
        batch_size: int = 64,
        **common: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **common)
        self.root = text_path("data.root", root)
        self.kind = tokenizer if is_hub(tokenizer) else choice("data.tokenizer", tokenizer, (*KINDS, "hf/NAME"))
        self.vocabulary = integer("data.vocabulary", vocabulary, ge=10)
        if not isinstance(lowercase, bool):
            raise UserError(f"data.lowercase must be true or false, got {lowercase!r}")
        self.lowercase = lowercase
        self.max_length = integer("data.max_length", max_length, ge=1)
        self.val_size = number("data.val_size", val_size, ge=0, le=0.9)
        self.test_size = number("data.test_size", test_size, gt=0, le=0.9)
        self._texts: list[str] = []
        """Sentences of all splits, in the order of `Batch.raw`."""

    @abstractmethod
    def read(self) -> dict[Split, Table]:
        """Return the files that are there, `train` at least. Raises UserError."""

    @abstractmethod
    def class_names(self, train: Table) -> dict[str, str]:
        """Return label as it is written → name of its class, in the order of the classes. Raises UserError."""

    @cached_property
    def _tables(self) -> dict[Split, Table]:
        tables = self.read()
        for split, table in tables.items():
            if table.empty:
                say(f"{table.path}: left out {table.empty} × empty sentence", detail=True)
            if not table.texts:
                raise UserError(f"{table.path} has no sentences; {split} needs some")
        return tables

    @cached_property
    def _names(self) -> dict[str, str]:
        names = self.class_names(self._tables["train"])
        if len(names) < 2:
            path = self._tables["train"].path
            raise UserError(f"{path} must have two or more different labels, got {', '.join(names)}")
        return names

    @property
    def classes(self) -> list[str]:
        """Names of the classes; reads the files."""
        return list(self._names.values())

    def prepare_data(self) -> None:
        """Read all files, so that none stops a training. Raises UserError."""
        _ = self.own_classes

    def setup(self, stage: str | None = None) -> None:
        """Fill `splits` once, whatever the stage; lines tell what is held out and cut. Raises UserError."""
        if self.splits:
            return
        parts = self._split()
        if is_hub(self.kind):
            self._tokenize = self._for(self.kind, "data.tokenizer")
        else:
            self._tokenize = Tokenize.fit(
                parts["train"][0], self.kind, self.vocabulary, self.lowercase, self.max_length
            )
        digest = hashlib.sha256()
        splits: dict[Split, RaggedTokens] = {}
        for split in SPLITS:
            texts, labels = parts[split]
            rows, cut = self._tokenize(texts)
            if cut:
                told = f"{cut:,} of {len(texts):,} sentences are cut at data.max_length={self.max_length} tokens"
                say(f"{split}: {told}", detail=True)
            digest.update(json.dumps([texts, labels.tolist()]).encode())
            if split == "train":
                labels = self.few_labels(labels)
            splits[split] = RaggedTokens(rows, labels, self.max_length, self._tokenize.padding, len(self._texts))
            self._texts += texts
        self._content, self.raw_count = digest.hexdigest(), len(self._texts)
        self._widths = splits["train"].widths
        self.splits = {**splits}

    def _split(self) -> dict[Split, tuple[list[str], Tensor]]:
        """Return texts and labels of the three splits, with no sentence of a split that is held out left in train."""
        order = {label: i for i, label in enumerate(self._names)}
        parts: dict[Split, tuple[list[str], Tensor]] = {
            split: (table.texts, torch.tensor([_class(table, i, order) for i in range(len(table.texts))]))
            for split, table in self._tables.items()
        }
        if not self.val_size:
            parts.setdefault("val", ([], torch.empty(0, dtype=torch.long)))
        wanted: dict[Split, float] = {"test": self.test_size, "val": self.val_size}
        missing = {split: fraction for split, fraction in wanted.items() if split not in parts}
        where, classes = self._tables["train"].path, self.own_classes
        check_classes(parts["train"][1], classes, list(missing), "sentences", where)
        tell_two_classes(*parts["train"], "sentences", where)
        for split, fraction in missing.items():
            texts, labels = parts["train"]
            found = hold_out(split, texts, labels, classes, fraction, self.split_seed, "sentences", where)
            parts["train"], parts[split] = (([texts[i] for i in some.tolist()], labels[some]) for some in found)
        for split in ("val", "test"):
            if split in missing:
                continue
            seen = set(parts["train"][0])
            if repeated := sum(text in seen for text in parts[split][0]):
                say(f"{split}: {repeated:,} of {len(parts[split][0]):,} sentences are in train too", detail=True)
        return parts

    @property
    def tokenize(self) -> Tokenize:
        """The fitted tokenizer; reads the files."""
        self.setup()
        return self._tokenize

    def texts(self, batch: Batch) -> list[str]:
        """Return the sentences in the rows `Batch.raw`."""
        assert isinstance(batch.raw, Tensor)
        return [self._texts[row] for row in batch.raw.tolist()]

    def lengths(self) -> Tensor:
        source = self.splits["train"]
        if isinstance(source, Subset):
            return self._widths[source.positions]
        return self._widths

    def epoch_views(self, epoch: int) -> Tensor:
        return torch.zeros(self.sizes["train"], dtype=torch.long)

    def example(self, count: int) -> dict[str, Tensor]:
        """Return sentences of 32 tokens, or `max_length` if that is less."""
        width = padded(min(EXAMPLE, self.max_length), self.max_length)
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(PADDING + 1, self.tokenize.vocabulary, (count, width), generator=generator)
        return {"ids": ids, "mask": torch.ones(count, width, dtype=torch.bool)}

    def model_kwargs(self) -> dict[str, Any]:
        """Return what networks depend on; see `Tokenize.facts`."""
        return super().model_kwargs() | self.tokenize.facts()

    def preprocessing(self) -> dict[str, Any]:
        return self.tokenize.card()

    def keys_for(self, network: str) -> dict[str, Any]:
        """Return `tokenizer`, unless the data has the one of this network already."""
        return {"tokenizer": network} if is_hub(network) and self._for(network).name != self.tokenize.name else {}

    def identity_for(self, network: str) -> dict[str, Any]:
        return self.identity() | {"tokenizer": self._for(network).name}

    def teacher_inputs(
        self, normalize: Any, input_size: Any, key: str, network: str = "", card: Mapping[str, Any] | None = None
    ) -> tuple[Translation | None, dict[str, Any]]:
        """See `DataModule`; a teacher with another tokenizer gets the tokens of its own, of the same sentences."""
        super().teacher_inputs(normalize, input_size, key)
        is_known = card is not None and card.get("kind") == "text"
        own = Tokenize.parse(card) if card is not None and is_known else self._for(network, f"model.teacher{key}")
        if own.facts() == self.tokenize.facts():
            return None, self.model_kwargs()
        return OwnTokens(own, self._texts), super().model_kwargs() | own.facts()

    def _for(self, network: str, key: str = "model.student") -> Tokenize:
        """Return the tokenizer that a network reads: one of Hugging Face its own, others that of the data."""
        return read_tokenizer(network, self.max_length, key) if is_hub(network) else self.tokenize

    def samples_identity(self) -> dict[str, Any]:
        self.setup()
        return {"name": self.name, "split_seed": self.split_seed, "content": self._content}

    def identity(self) -> dict[str, Any]:
        """Return the identity of the data set; reads the files."""
        return self.samples_identity() | {"max_length": self.max_length, "tokenizer": self.tokenize.name}


def _class(table: Table, i: int, order: dict[str, int]) -> int:
    label = table.labels[i]
    if label not in order:
        known = ", ".join(list(order)[:10]) + (" …" if len(order) > 10 else "")
        raise UserError(f"{table.path}, line {table.lines[i]}: label {label!r} is none of the classes {known}")
    return order[label]
