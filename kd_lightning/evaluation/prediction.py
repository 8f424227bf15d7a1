"""The classes that a run's models see in image files."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from kd_lightning import runs
from kd_lightning.config import build
from kd_lightning.data.images.folder import open_rgb
from kd_lightning.data.images.image_folder import MARGIN, center
from kd_lightning.data.images.normalize import Normalize
from kd_lightning.evaluation.found import find_teacher
from kd_lightning.evaluation.inference import Answer, Inference
from kd_lightning.evaluation.opened import overridden
from kd_lightning.types import Batch
from kd_lightning.utils.checks import UserError

BATCH = 64


class Prediction(NamedTuple):
    """One image and what each model says of it."""

    path: Path
    pixels: Tensor
    """As the models see it, uint8 `[H, W, 3]`."""
    top: dict[str, list[tuple[str, float]]]
    """Model → its classes with the largest probabilities, largest first."""


class Predictor:
    """The deployed student of the run in `path`, and its teacher on demand; `overrides` tell where its things lie.

    Raises UserError.
    """

    def __init__(self, path: Path, teacher: bool = False, overrides: Sequence[str] = ()):
        run = runs.read(path)
        student, about = runs.load_student(path)
        self.classes, self.normalize = about["classes"], Normalize.parse(about["normalize"])
        photos = run.config.data._target_.endswith("ImageFolderDataModule")
        self._square = center(about["image_size"], MARGIN if photos else 1.0)
        inference = Inference("cpu", "32-true")  # a few images do not pay for a transfer
        self.answers: dict[str, Answer] = {"student": inference.student(student)}
        if teacher:
            if "teacher" not in run.metrics:
                raise UserError(f"--teacher: the run in {path} had no teacher (loss {run.config.loss._target_})")
            config = overridden(run.config, list(overrides))
            self.answers["teacher"] = inference.teacher(find_teacher(run, config, build(config.data, "data")))

    def read(self, path: Path) -> Tensor:
        """The image as the models see it, uint8 `[H, W, 3]`. Raises UserError if it cannot be read."""
        try:
            return torch.from_numpy(np.array(self._square(open_rgb(path))))
        except UnidentifiedImageError as e:
            raise UserError(f"{path} is not an image") from e
        except Exception as e:  # PIL's plugins raise many kinds
            reason = getattr(e, "strerror", None) or str(e).partition("\n")[0] or type(e).__name__
            raise UserError(f"cannot read {path}: {reason}") from e

    @torch.no_grad()
    def __call__(self, paths: list[Path], pixels: list[Tensor], top: int) -> Iterator[Prediction]:
        """The `top` classes of each image of one batch."""
        x, nothing = self.normalize(torch.stack(pixels)), torch.empty(0, dtype=torch.long)
        best = {}
        for name, answer in self.answers.items():
            p, c = answer(Batch(x, nothing, nothing)).float().softmax(1).topk(min(top, len(self.classes)))
            best[name] = [
                [(self.classes[k], v) for k, v in zip(*row, strict=True)]
                for row in zip(c.tolist(), p.tolist(), strict=True)
            ]
        for i, (path, image) in enumerate(zip(paths, pixels, strict=True)):
            yield Prediction(path, image, {name: rows[i] for name, rows in best.items()})


def find_images(words: list[Path]) -> list[Path]:
    """Files as named, and all images below each folder, sorted. Raises UserError for a folder without any."""
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


def predict(predictor: Predictor, paths: list[Path], top: int) -> Iterator[Prediction | UserError]:
    """A prediction, or why there is none, for each image, in order of batches."""
    for start in range(0, len(paths), BATCH):
        read: list[tuple[Path, Tensor]] = []
        for path in paths[start : start + BATCH]:
            try:
                read.append((path, predictor.read(path)))
            except UserError as e:
                yield e
        if read:
            yield from predictor([path for path, _ in read], [pixels for _, pixels in read], top)
