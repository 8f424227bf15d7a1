"""Tokenizers of Hugging Face, and the tokens of a teacher that reads sentences with a tokenizer of its own."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.text.ragged import RaggedTokens
from kd_lightning.data.text.tokens import Tokenize
from kd_lightning.data.translation import Translation
from kd_lightning.types import Batch
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.hub import fetched, library


@lru_cache
def read_tokenizer(name: str, max_length: int, key: str) -> Tokenize:
    """Return the tokenizer of `hf/NAME` or `hf/FOLDER`. Raises UserError, naming `key`."""
    transformers = library(name, key)
    found: Any = fetched(
        name,
        key,
        "the tokenizer",
        lambda place: transformers.AutoTokenizer.from_pretrained(place, use_fast=True, trust_remote_code=False),
    )
    if not found.is_fast:
        raise UserError(f"{key}: the tokenizer of {name!r} has no tokenizer.json, and cannot be made into one")
    padding = found.pad_token_id if found.pad_token_id is not None else found.eos_token_id or 0
    return Tokenize(json.loads(found.backend_tokenizer.to_str()), max_length, int(padding))


class OwnTokens(Translation):
    """Gives a teacher the tokens of its own tokenizer, of the same sentences.

    Args:
        tokenize: The teacher's tokenizer.
        texts: All sentences of the data set, in the order of `Batch.raw`.
    """

    reads_raw = True

    def __init__(self, tokenize: Tokenize, texts: Sequence[str]) -> None:
        super().__init__()
        self.tokenize = tokenize
        rows, _ = tokenize(texts)
        self._tokens = RaggedTokens(
            rows, torch.zeros(len(rows), dtype=torch.long), tokenize.max_length, tokenize.padding
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return `{"ids", "mask"}` of the sentences of a batch."""
        if batch.raw is None:
            raise UserError("the teacher has its own tokenizer, and this batch does not say which sentences it holds")
        if not isinstance(batch.raw, Tensor):
            return self.tokenize.inputs(batch.raw)
        rows = batch.raw % len(self._tokens)  # examples for a measurement may be more than there are sentences
        self._tokens.to(rows.device)
        (width,) = self._tokens.shapes(rows, len(rows))
        return self._tokens.inputs(rows, width)

    def extra_repr(self) -> str:
        return f"tokenizer={self.tokenize.name}, max_length={self.tokenize.max_length}"
