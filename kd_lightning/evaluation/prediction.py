"""Predictions for files: the classes that a run's models see in images."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from rich.table import Table
from torch import Tensor

from kd_lightning.data.images.decode import Preprocess
from kd_lightning.evaluation.inference import Answer, Inference
from kd_lightning.evaluation.opened import open_run
from kd_lightning.types import Batch
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.tables import Column, terminal

BATCH = 64


class Prediction(NamedTuple):
    """One image and what each model predicts."""

    path: Path
    pixels: Tensor
    """The image as the models see it, uint8 `[H, W, 3]`."""
    top: dict[str, list[tuple[str, float]]]
    """Model → its classes with the largest probabilities, largest first."""


class Predictor:
    """The deployed student of a run, and its teacher on demand; the data of the run need not be there.

    Args:
        path: The run directory.
        teacher: Ask the teacher too.
        overrides: `key=value` as typed: where the teacher lies now.
        raw: Give the student's probabilities as it was trained, not calibrated by the temperature of its card.

    Raises:
        UserError: If the run is unfinished or damaged, has no teacher or is not of images.
    """

    def __init__(self, path: Path, teacher: bool = False, overrides: Sequence[str] = (), raw: bool = False):
        opened = open_run(path, overrides)
        card = opened.card
        if (kind := card.preprocessing.get("kind")) != "images":
            raise UserError(
                f"predict: the run's data is {kind!r}, of which no files can be read; predict is for images"
            )
        if teacher and not opened.has_teacher:
            raise UserError(f"--teacher: the run in {path} had no teacher (loss {opened.config.loss._target_})")
        self.classes = card.classes
        self.preprocess = Preprocess.parse(card.preprocessing)
        self.temperature = 1.0 if raw else float(card.extra.get("temperature", 1.0))
        """Temperature of the student's probabilities; 1 leaves them as they are."""
        inference = Inference("cpu", "32-true")  # a few images do not pay for a transfer
        self._answers: dict[str, tuple[Answer, float]] = {
            "student": (inference.student(opened.student), self.temperature)
        }
        if teacher:
            self._answers["teacher"] = inference.teacher(opened.find_teacher().teacher), 1.0

    @torch.no_grad()
    def __call__(self, paths: Sequence[Path], pixels: list[Tensor], top: int) -> Iterator[Prediction]:
        """Yield the `top` classes of each image of one batch."""
        x, nothing = self.preprocess(torch.stack(pixels)), torch.empty(0, dtype=torch.long)
        best = {}
        for name, (answer, temperature) in self._answers.items():
            z = answer(Batch(x, nothing, nothing)).float() / temperature
            p, c = z.softmax(1).topk(min(top, len(self.classes)))
            best[name] = [
                [(self.classes[k], v) for k, v in zip(*row, strict=True)]
                for row in zip(c.tolist(), p.tolist(), strict=True)
            ]
        for i, (path, image) in enumerate(zip(paths, pixels, strict=True)):
            yield Prediction(path, image, {name: rows[i] for name, rows in best.items()})


def find_images(words: Sequence[Path]) -> list[Path]:
    """Return files as named, and all images below each folder, sorted. Raises UserError for a folder without any."""
    suffixes = {suffix for suffix, form in Image.registered_extensions().items() if form in Image.OPEN}
    found: list[Path] = []
    for word in words:
        if not word.is_dir():
            found.append(word)
            continue
        below = sorted(p for p in word.rglob("*") if p.suffix.lower() in suffixes and p.name[0] != "." and p.is_file())
        if not below:
            raise UserError(f"no images in the folder {word}")
        found += below
    return found


def predict(predictor: Predictor, paths: Sequence[Path], top: int) -> Iterator[Prediction | UserError]:
    """Yield a prediction for each image, or why there is none; within a batch, the latter come first."""
    for start in range(0, len(paths), BATCH):
        found: list[Path] = []
        pixels: list[Tensor] = []
        for path in paths[start : start + BATCH]:
            try:
                pixels.append(predictor.preprocess.read(path))
                found.append(path)
            except UserError as e:
                yield e
        if found:
            yield from predictor(found, pixels, top)


def as_json(prediction: Prediction, temperature: float) -> str:
    """Return `{"image": …, "temperature": …, "student": [{"class": …, "probability": …}, …]}` in one line."""
    values: dict[str, Any] = {"image": str(prediction.path), "temperature": round(temperature, 6)}
    for name, best in prediction.top.items():
        values[name] = [{"class": c, "probability": round(p, 6)} for c, p in best]
    return json.dumps(values, ensure_ascii=False)


def predictions_table(predictions: Sequence[Prediction]) -> Table:
    """Return a table with a row for each image and a column for each model."""
    rows = []
    for path, _, top in predictions:
        cells = {name: "\n".join(f"{p:6.1%}  {c}" for c, p in best) for name, best in top.items()}
        rows += [{"image": str(path)} | cells, {}]
    columns = [Column("image", "image"), *(Column(name, name) for name in predictions[0].top)]
    return terminal(columns, rows[:-1])
