"""What goes into a file: the student between its inputs and outputs as `about` declares them."""

from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.data.images.normalize import Normalize
from kd_lightning.deploy.files.about import PIXELS


class Network(nn.Module):
    """Images to float32 logits `[B, C]`; see `about` for the images."""

    scale: Tensor
    shift: Tensor

    def __init__(self, student: nn.Module, about: dict[str, Any]):
        super().__init__()
        self.student = student
        self.pixels = about["input"] == PIXELS
        self.fp16 = about["precision"] == "fp16"
        if self.fp16:
            student.half()
        mean, std = (torch.tensor(values) for values in Normalize.parse(about["normalize"]))
        if self.pixels:
            self.register_buffer("scale", (1 / (255 * std)).reshape(3, 1, 1))
            self.register_buffer("shift", (-mean / std).reshape(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).float() * self.scale + self.shift if self.pixels else images
        logits: Tensor = self.student(x.half() if self.fp16 else x)
        return logits.float()


def example(about: dict[str, Any], batch: int) -> Tensor:
    """Images of zeros, as `Network` takes them."""
    size = about["image_size"]
    if about["input"] == PIXELS:
        return torch.zeros(batch, size, size, 3, dtype=torch.uint8)
    return torch.zeros(batch, 3, size, size)
