"""Predictions for files: the classes that a run's models see in images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kd_lightning.data.find_files import printable
from kd_lightning.data.images.decode import Preprocess
from kd_lightning.evaluation.answers import Answers, Top, path_label
from kd_lightning.evaluation.opened import OpenedRun
from kd_lightning.utils.checks import UserError

BATCH = 64


class Prediction(NamedTuple):
    """One image and what each model predicts."""

    path: Path
    pixels: Tensor
    """The image as the models see it, uint8 `[H, W, 3]`."""
    top: Top

    @property
    def told(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"image": printable(self.path)}

    @property
    def label(self) -> str:
        return path_label(self.path)


class Predictor:
    """The deployed student of a run of images, and its teacher on demand; the data of the run need not be there.

    Args:
        opened: The run.
        teacher: Ask the teacher too.
        raw: Give the student's probabilities as it was trained, not calibrated by the temperature of its card.

    Raises:
        UserError: If the run has no teacher or is not of images.
    """

    def __init__(self, opened: OpenedRun, teacher: bool = False, raw: bool = False):
        self.preprocess = Preprocess.parse(opened.card.preprocessing)
        self._answers = Answers(opened, teacher, raw)
        self.temperatures = self._answers.temperatures

    def __call__(self, paths: Sequence[Path], pixels: list[Tensor], top: int) -> Iterator[Prediction]:
        """Yield the `top` classes of each image of one batch."""
        best = self._answers(self.preprocess(torch.stack(pixels)), paths, top)
        for path, image, found in zip(paths, pixels, best, strict=True):
            yield Prediction(path, image, found)

    def notes(self, done: Sequence[Prediction]) -> Iterator[str]:
        """Yield lines on what was not seen: none, as an image is seen whole or is an error."""
        yield from ()


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
