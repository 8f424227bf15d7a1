"""From sentences to token ids: a tokenizer that is fitted on the training split and kept in the student's card."""

import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.text.table import is_unicode
from kd_lightning.utils.checks import UserError, choice, integer

KINDS = ("words", "pieces")
PADDING, UNKNOWN = 0, 1
"""Token ids of what fills a batch, and of a word that is not in the vocabulary."""
MULTIPLE = 8
"""Batches are padded to a multiple of so many tokens: few shapes, and kernels like them."""


class Tokenize:
    """Turns sentences into token ids.

    Args:
        values: A tokenizer as plain values, in the JSON format of the library `tokenizers`.
        max_length: Tokens that are kept of a sentence, with the ones that the tokenizer adds, such as `[CLS]`.
        padding: Token id of what fills a batch.

    Raises:
        UserError: If the library is missing, the values are no tokenizer, or `max_length` leaves no room for a word.
    """

    def __init__(self, values: Mapping[str, Any], max_length: int, padding: int = PADDING) -> None:
        self.values, self.max_length, self.padding = dict(values), max_length, padding
        library = _library()
        try:
            self._tokenizer = library.Tokenizer.from_str(json.dumps(self.values))
        except Exception as e:  # the library's own
            raise UserError(f"the tokenizer of this model cannot be read: {e}") from e
        added = self._tokenizer.num_special_tokens_to_add(False)
        integer("data.max_length", max_length, ge=added + 1)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)

    @staticmethod
    def fit(texts: Iterable[str], kind: str, vocabulary: int, lowercase: bool, max_length: int) -> "Tokenize":
        """Return a tokenizer whose vocabulary is made of `texts`; the same texts give the same one.

        Args:
            texts: Sentences of the training split.
            kind: `words`, the most frequent words; or `pieces`, parts of words by byte pair encoding. (WordPiece of the
                library gives another vocabulary at each call, so that a teacher could not be found again.)
            vocabulary: Most tokens, with padding and unknown.
            lowercase: Make letters small and take accents off.
            max_length: Tokens that are kept of a sentence.

        Raises:
            UserError: If the library is missing.
        """
        choice("data.tokenizer", kind, KINDS)
        library = _library()
        common = {"vocab_size": vocabulary, "special_tokens": ["[PAD]", "[UNK]"], "show_progress": False}
        words = library.pre_tokenizers.BertPreTokenizer()  # at blanks and punctuation
        if kind == "words":
            tokenizer = library.Tokenizer(library.models.WordLevel(unk_token="[UNK]"))
            tokenizer.pre_tokenizer = words
            trainer = library.trainers.WordLevelTrainer(**common)
        else:
            tokenizer = library.Tokenizer(library.models.BPE(unk_token="[UNK]"))
            tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence([words, library.pre_tokenizers.Metaspace()])
            trainer = library.trainers.BpeTrainer(**common)
        tokenizer.normalizer = library.normalizers.BertNormalizer(lowercase=lowercase)
        tokenizer.train_from_iterator(texts, trainer)
        return Tokenize(json.loads(tokenizer.to_str()), max_length)

    @staticmethod
    def parse(card: Mapping[str, Any]) -> "Tokenize":
        """Return the tokenizer that `StudentCard.preprocessing` describes. Raises UserError if it is not of text."""
        if card.get("kind") != "text":
            raise UserError(f"this model does not take text but {card.get('kind')}")
        return Tokenize(card["tokenizer"], int(card["max_length"]), int(card.get("padding", PADDING)))

    def card(self) -> dict[str, Any]:
        """Return what `parse` reads."""
        card = {"kind": "text", "max_length": self.max_length, "tokenizer": self.values}
        return card if self.padding == PADDING else card | {"padding": self.padding}

    @cached_property
    def name(self) -> str:
        """10 hex digits: equal for equal tokenizers."""
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()[:10]

    def facts(self) -> dict[str, Any]:
        """Return what a network depends on; `tokenizer` names it, so that no network is given another one's ids."""
        return {
            "vocabulary": self.vocabulary,
            "max_length": self.max_length,
            "padding": self.padding,
            "tokenizer": self.name,
        }

    @cached_property
    def vocabulary(self) -> int:
        """Number of token ids."""
        return int(self._tokenizer.get_vocab_size())

    def __call__(self, texts: Sequence[str]) -> tuple[list[list[int]], int]:
        """Return the ids of each text, at least one and at most `max_length`, and how many texts were cut."""
        found = [self._tokenizer.encode(text) for text in texts]
        return [one.ids or [UNKNOWN] for one in found], sum(bool(one.overflowing) for one in found)

    def inputs(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Return the input of a model: `ids` and `mask` `[N, L]`. Raises UserError if a text is empty."""
        for text in texts:
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"a sentence must be a string that is not empty, got {text!r}")
            if not is_unicode(text):
                raise UserError(f"a sentence must be Unicode, got {text!r}")
        rows, _ = self(texts)
        width = padded(max(map(len, rows)), self.max_length)
        ids = torch.full((len(rows), width), self.padding)
        for row, some in zip(ids, rows, strict=True):
            row[: len(some)] = torch.tensor(some)
        lengths = torch.tensor([len(some) for some in rows])
        return {"ids": ids, "mask": torch.arange(width) < lengths[:, None]}


def padded(longest: int, max_length: int) -> int:
    """Return the number of tokens to which a batch is filled up."""
    return min(max_length, -(-longest // MULTIPLE) * MULTIPLE)


def _library() -> Any:
    if importlib.util.find_spec("tokenizers") is None:
        raise UserError("text needs tokenizers: pip install 'kd_lightning[text]'")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not outlive a fork, of which it warns
    import tokenizers

    return tokenizers
