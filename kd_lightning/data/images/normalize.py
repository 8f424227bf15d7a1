"""Normalization of stored pixels to the inputs of a model."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kd_lightning.data.images.augment import check_keys
from kd_lightning.utils.checks import UserError, number

Color = tuple[float, float, float]


class Normalize(NamedTuple):
    """Mean and standard deviation per channel (red, green, blue) of pixels in [0, 1]."""

    mean: Color
    std: Color

    @staticmethod
    def parse(values: "Mapping[str, Any] | Normalize", key: str = "data.normalize") -> "Normalize":
        """Return the normalization of the configuration node called `key`. Raises UserError."""
        if isinstance(values, Normalize):
            values = values._asdict()
        check_keys(key, values, ("mean", "std"))
        return Normalize(_color(key, values, "mean", ge=0.0), _color(key, values, "std", gt=0.0))

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return float32 `[B, 3, H, W]` of uint8 `[B, H, W, 3]`, laid out as channels_last without a copy."""
        scale, shift = _affine(self, pixels.device)
        return pixels.float().mul_(scale).add_(shift).permute(0, 3, 1, 2)


@lru_cache(maxsize=16)  # not two copies to the device per batch
def _affine(normalize: Normalize, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = torch.tensor(normalize.mean), torch.tensor(normalize.std)
    return (1 / (255 * std)).to(device), (-mean / std).to(device)


def _color(node: str, values: Mapping[str, Any], name: str, **bounds: float) -> Color:
    key, value = f"{node}.{name}", values.get(name)
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 3:
        raise UserError(f"{key} must be three numbers [red, green, blue] for pixels in [0, 1], got {value!r}")
    red, green, blue = (number(f"{key}[{i}]", v, le=1.0, **bounds) for i, v in enumerate(value))
    return red, green, blue


NORMALIZATIONS = {
    "imagenet": Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "cifar100": Normalize((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
}
"""Statistics that published checkpoints were trained with."""
