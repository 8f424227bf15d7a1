"""A run directory or an exported file as a model that answers raw samples."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kd_lightning import runs
from kd_lightning.data.audio.inputs import waveforms
from kd_lightning.data.audio.logmel import LogMel
from kd_lightning.data.images.decode import Preprocess
from kd_lightning.data.text.tokens import Tokenize
from kd_lightning.deploy.files.card import PIXELS, is_audio, is_images, is_text, takes_raw
from kd_lightning.deploy.files.formats import open_file
from kd_lightning.models.hooks import logits_of
from kd_lightning.runs.students import load_student
from kd_lightning.types import StudentCard, each_of, part, whole
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.trust import is_trusted, trusting


class Answer(NamedTuple):
    """Answer of a model to N samples."""

    labels: list[str]
    """The most probable class of each."""
    probabilities: Tensor
    """`[N, C]`, float32; classes as in `Model.classes`, or those of one task there."""


class Model:
    """Answers raw samples: `model(image).labels`. See `kd_lightning.load`.

    Args:
        card: Card of the student or of the file.
        answer: Inputs, as the card describes them, to logits `[N, C]`, by task if there are several.
        calibrated: Divide the logits by the temperature that the card knows.
    """

    def __init__(self, card: StudentCard, answer: Callable[[Any], Any], calibrated: bool = True):
        self.tasks = {task: list(names) for task, names in card.tasks.items()}
        self.card, self.classes = card, whole(self.tasks)
        self._answer = answer
        self._preprocess = Preprocess.parse(card.preprocessing) if is_images(card) else None
        self._tokenize = Tokenize.parse(card.preprocessing) if is_text(card) else None
        self._logmel = LogMel.parse(card.preprocessing) if is_audio(card) else None
        self._takes_raw = takes_raw(card)
        self._takes_pixels = card.extra.get("input") == PIXELS
        # A file may have divided its logits already.
        each = each_of(card.extra.get("temperature" if calibrated else "divided_by", {}), self.tasks, 1.0)
        self._factors = {task: 1 / t for task, t in each.items()} if calibrated else each

    def __call__(self, samples: Any) -> Any:
        """Answer one image, sentence or recording or several, or inputs of another kind; see `kd_lightning.load`.

        Returns:
            An `Answer`, or a dictionary of these by task.

        Raises:
            UserError: If the samples are nothing of that kind.
        """
        x = samples
        if self._preprocess is not None:
            x = self._inputs(samples, self._preprocess)
        elif self._tokenize is not None and not isinstance(samples, Mapping):
            x = self._tokenize.inputs(_each(samples))
        elif self._logmel is not None and not (isinstance(samples, Tensor) and samples.ndim == 4):
            waves = waveforms(samples, self._logmel)
            x = waves if self._takes_raw else self._logmel(waves)
        with torch.no_grad():
            said = self._answer(x)
        answers = {task: self._told(part(said, task), task) for task in self.tasks}
        return whole(answers)

    def _told(self, logits: Tensor, task: str) -> Answer:
        probabilities = (self._factors[task] * logits.float()).softmax(1)
        return Answer([self.tasks[task][k] for k in probabilities.argmax(1).tolist()], probabilities)

    def _inputs(self, images: Any, preprocess: Preprocess) -> Tensor:
        if isinstance(images, Tensor) and images.is_floating_point():
            size = preprocess.image_size
            if self._takes_pixels or images.shape[1:] != (3, size, size):
                floats = "" if self._takes_pixels else f"normalized [N, 3, {size}, {size}] or "
                raise UserError(f"the model takes {floats}uint8 pixels, got floats {list(images.shape)}")
            return images.cpu()
        pixels = torch.stack([preprocess.pixels(image) for image in _each(images)])
        return pixels if self._takes_pixels else preprocess(pixels)


def _each(images: Any) -> Sequence[Any]:
    if isinstance(images, Tensor | np.ndarray) and images.ndim == 4:
        return list(images)
    return images if isinstance(images, list | tuple) and images else [images]


def open_model(path: str | Path, calibrated: bool = True, trust: bool = False) -> Model:
    """Open a run directory or a file; see `kd_lightning.load`."""
    path = Path(path).expanduser()
    with trusting(trust or is_trusted()):
        if path.is_dir():
            runs.read(path)
            student, card = load_student(path)
            return Model(card, partial(logits_of, student), calibrated)
        opened = open_file(path)
    return Model(opened.card, opened.answer, calibrated)
