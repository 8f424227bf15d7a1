"""A run directory or an exported file as something to ask."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from kd_lightning import runs
from kd_lightning.data.images.image_folder import MARGIN, center
from kd_lightning.data.images.normalize import Normalize
from kd_lightning.deploy.files.about import FLOAT, PIXELS
from kd_lightning.deploy.files.formats import open_file
from kd_lightning.utils.checks import UserError


class Answer(NamedTuple):
    """What a model says of N images."""

    labels: list[str]
    """The most probable class of each."""
    probabilities: Tensor
    """`[N, C]`, float32; classes as in `Model.classes`."""


class Model:
    """Answers images: `model(image).labels`. See `kd_lightning.load`."""

    def __init__(self, about: dict[str, Any], answer: Callable[[Tensor], Tensor], margin: float = 1.0):
        self.about, self.classes = about, list(about["classes"])
        self._answer, self._normalize = answer, Normalize.parse(about["normalize"])
        self._square = center(about["image_size"], margin)

    def __call__(self, images: Any) -> Answer:
        """One image or several; see `kd_lightning.load`. Raises UserError if they are nothing of that kind."""
        with torch.no_grad():
            probabilities = self._answer(self._input(images)).float().softmax(1)
        return Answer([self.classes[k] for k in probabilities.argmax(1).tolist()], probabilities)

    def _input(self, images: Any) -> Tensor:
        if isinstance(images, Tensor) and images.is_floating_point():
            if images.dim() != 4 or self.about["input"] == PIXELS:
                wanted = "uint8 pixels" if self.about["input"] == PIXELS else "normalized [N, 3, H, W] or uint8 pixels"
                raise UserError(f"the model takes {wanted}, got floats {list(images.shape)}")
            return images.cpu()
        pixels = torch.stack([self._pixels(image) for image in _each(images)])
        return pixels if self.about["input"] == PIXELS else self._normalize(pixels)

    def _pixels(self, image: Any) -> Tensor:
        """uint8 `[H, W, 3]`; turned, cut and resized as in the evaluation of photos where its size is another."""
        if not isinstance(image, Image.Image):
            array = np.asarray(image)
            if array.dtype != np.uint8 or array.ndim not in (2, 3):
                raise UserError(f"an image must be uint8 [H, W, 3], got {array.dtype} {list(array.shape)}")
            if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
                array = array.transpose(1, 2, 0)
            image = Image.fromarray(np.ascontiguousarray(array))
        return torch.from_numpy(np.array(self._square(ImageOps.exif_transpose(image).convert("RGB"))))


def _each(images: Any) -> Sequence[Any]:
    if isinstance(images, Image.Image):
        return [images]
    if isinstance(images, Tensor):
        images = images.cpu().numpy()
    if isinstance(images, np.ndarray):
        return list(images) if images.ndim == 4 else [images]
    if isinstance(images, list | tuple) and images:
        return images
    raise UserError(f"give a PIL image, an array, a tensor or a list of images, got {type(images).__name__}")


def open_model(path: str | Path) -> Model:
    """See `kd_lightning.load`."""
    path = Path(path).expanduser()
    if path.is_dir():
        run = runs.read(path)
        student, about = runs.load_student(path)
        photos = run.config.data._target_.endswith("ImageFolderDataModule")
        return Model(about | {"input": FLOAT}, student, MARGIN if photos else 1.0)
    opened = open_file(path)
    return Model(opened.about, opened.answer)
