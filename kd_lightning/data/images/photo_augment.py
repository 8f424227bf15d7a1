"""Augmentation of photos through torchvision; torch's global generator is its only chance."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchvision.transforms import v2

from kd_lightning.data.images.augment import check_keys
from kd_lightning.data.images.decode import center_box, square
from kd_lightning.data.images.normalize import Normalize
from kd_lightning.utils.checks import UserError, integer, number

MAX_MAGNITUDE = 30


@dataclass(frozen=True)
class PhotoAugment:
    """Augmentation of a training photo, in the order of its fields.

    Raises:
        UserError: If a value is wrong; the message names `data.augment.*`.
    """

    min_area: float = 0.25
    """Least fraction of the photo's area that the random crop shows."""
    flip: bool = True
    """Mirror half of the photos left to right."""
    randaugment: int = 0
    """Magnitude, up to 30, of two random changes of color or geometry (arXiv 1909.13719); 0 for none."""
    trivialaugment: bool = False
    """One random change of random strength (arXiv 2103.10158)."""
    random_erasing: float = 0.0
    """Probability that a random rectangle is set to the mean (arXiv 1708.04896)."""

    def __post_init__(self) -> None:
        min_area = number("data.augment.min_area", self.min_area, gt=0, le=1)
        integer("data.augment.randaugment", self.randaugment, ge=0, le=MAX_MAGNITUDE)
        erasing = number("data.augment.random_erasing", self.random_erasing, ge=0, le=1)
        object.__setattr__(self, "min_area", min_area)  # as floats, so that 1 and 1.0 are one data set
        object.__setattr__(self, "random_erasing", erasing)
        for name, value in (("flip", self.flip), ("trivialaugment", self.trivialaugment)):
            if not isinstance(value, bool):
                raise UserError(f"data.augment.{name} must be true or false, got {value!r}")
        if self.randaugment and self.trivialaugment:
            raise UserError(
                "data.augment.randaugment and data.augment.trivialaugment exclude each other; leave one out"
            )

    @staticmethod
    def parse(values: "Mapping[str, Any] | PhotoAugment") -> "PhotoAugment":
        """Return the augmentation of the keys of `data.augment`; a missing key has its default. Raises UserError."""
        if isinstance(values, PhotoAugment):
            return values
        check_keys("data.augment", values, tuple(field.name for field in fields(PhotoAugment)))
        return PhotoAugment(**{str(key): value for key, value in values.items()})


class PhotoView:
    """Reads a photo as an RGB image of `size` x `size` pixels.

    Args:
        size: Height and width in pixels.
        margin: Shorter side before the center crop of an evaluation, divided by `size`.
        augment: Augmentation of a training; None for evaluations.
        normalize: Its mean is the color where nothing of the photo is left.
    """

    def __init__(self, size: int, margin: float, augment: PhotoAugment | None, normalize: Normalize) -> None:
        self.size, self.center = size, partial(center_box, size=size, margin=margin)
        self.crop: v2.RandomResizedCrop | None = None
        self.changes: v2.Transform = v2.Identity()
        if augment is not None:
            self.crop = v2.RandomResizedCrop(size, scale=(augment.min_area, 1.0))
            self.changes = v2.Compose(_changes(augment, [round(255 * mean) for mean in normalize.mean]))

    def __call__(self, path: Path) -> Any:
        """Return the pixels, uint8 `[size, size, 3]`. Raises UserError if the file cannot be read."""
        if self.crop is None:
            return np.array(square(path, self.size, self.center))
        return np.array(self.changes(square(path, self.size, self._random_box, exact=False)))

    def _random_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        assert self.crop is not None
        box = self.crop.make_params([torch.empty(3, height, width, device="meta")])
        return box["left"], box["top"], box["left"] + box["width"], box["top"] + box["height"]


def _changes(augment: PhotoAugment, mean: list[int]) -> list[v2.Transform]:
    changes: list[v2.Transform] = [v2.RandomHorizontalFlip(0.5 * augment.flip)]
    bilinear = v2.InterpolationMode.BILINEAR
    if augment.randaugment:
        changes.append(v2.RandAugment(magnitude=augment.randaugment, interpolation=bilinear, fill=mean))
    if augment.trivialaugment:
        changes.append(v2.TrivialAugmentWide(interpolation=bilinear, fill=mean))
    if augment.random_erasing:
        changes += [v2.PILToTensor(), v2.RandomErasing(augment.random_erasing, value=mean), v2.ToPILImage()]
    return changes
