"""From stored pixels to what a model takes."""

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
        """From the configuration node called `key`. Raises UserError."""
        if isinstance(values, Normalize):
            values = values._asdict()
        check_keys(key, values, ("mean", "std"))
        return Normalize(_color(key, values, "mean", least=0.0), _color(key, values, "std", above=0.0))

    def __call__(self, pixels: Tensor) -> Tensor:
        """uint8 `[B, H, W, 3]` to float32 `[B, 3, H, W]`, laid out as channels_last without a copy."""
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
    red, green, blue = (number(f"{key}[{i}]", v, most=1.0, **bounds) for i, v in enumerate(value))
    return red, green, blue
