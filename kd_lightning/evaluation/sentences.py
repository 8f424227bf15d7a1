"""Predictions for sentences: the classes that a run's models see in them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kd_lightning.data.text.table import read_text
from kd_lightning.data.text.tokens import Tokenize
from kd_lightning.evaluation.answers import Answers, Top
from kd_lightning.evaluation.opened import OpenedRun
from kd_lightning.utils.checks import UserError

BATCH = 64
LONGEST = 200
"""Characters of a sentence in a table."""


class Sentence(NamedTuple):
    """One sentence, and where it was given."""

    text: str
    where: str


class SentencePrediction(NamedTuple):
    """One sentence and what each model predicts."""

    text: str
    cut: bool
    """True if it is longer than what the models read."""
    top: Top

    @property
    def told(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"text": self.text} | ({"cut": True} if self.cut else {})

    @property
    def label(self) -> str:
        return self.text if len(self.text) <= LONGEST else f"{self.text[:LONGEST]} …"


class SentencePredictor:
    """The deployed student of a run of text, and its teacher on demand; see `Predictor`."""

    def __init__(self, opened: OpenedRun, teacher: bool = False, raw: bool = False):
        self.tokenize = Tokenize.parse(opened.card.preprocessing)
        self._answers = Answers(opened, teacher, raw)
        self.temperatures = self._answers.temperatures

    def __call__(self, texts: Sequence[str], top: int) -> Iterator[SentencePrediction]:
        """Yield the `top` classes of each sentence of one batch."""
        best = self._answers(self.tokenize.inputs(texts), texts, top)
        for text, found in zip(texts, best, strict=True):
            yield SentencePrediction(text, self.tokenize([text])[1] > 0, found)

    def notes(self, done: Sequence[SentencePrediction]) -> Iterator[str]:
        """Yield lines on what was not read."""
        if cut := sum(one.cut for one in done):
            yield f"{cut} of {len(done)} are longer than {self.tokenize.max_length} tokens; the rest was not read."


def find_sentences(words: Sequence[str]) -> list[Sentence]:
    """Return each word as a sentence, and the lines of each `.txt` file. Raises UserError for files of other kinds."""
    found: list[Sentence] = []
    for word in words:
        if os.path.exists(word) and (Path(word).suffix != ".txt" or os.path.isdir(word)):
            what = "folder" if os.path.isdir(word) else "file"
            raise UserError(f"{word} is a {what}; sentences are read from .txt files, one in each line")
        if not word.endswith(".txt") or len(word.split()) > 1:
            found.append(Sentence(word, "a sentence"))
            continue
        lines = [line.rstrip("\r") for line in read_text(Path(word)).split("\n")]  # as training cuts them
        if not lines[-1]:
            lines.pop()
        if not lines:
            raise UserError(f"no sentences in {word}")
        found += [Sentence(line, f"{word}, line {number}") for number, line in enumerate(lines, 1)]
    return found


def predict(
    predictor: SentencePredictor, sentences: Sequence[Sentence], top: int
) -> Iterator[SentencePrediction | UserError]:
    """Yield a prediction for each sentence, or why there is none; within a batch, the latter come first."""
    for start in range(0, len(sentences), BATCH):
        part = sentences[start : start + BATCH]
        for text, where in part:
            if not text.strip():
                yield UserError(f"{where} is empty")
        if texts := [text for text, _ in part if text.strip()]:
            yield from predictor(texts, top)
