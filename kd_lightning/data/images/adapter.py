"""Images of a data set as another network was trained on them."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.data.images.normalize import Normalize
from kd_lightning.data.translation import Translation
from kd_lightning.types import Batch


class ImageAdapter(Translation):
    """Changes the normalization and the size of normalized images.

    Args:
        old: Normalization of the images that are given.
        new: Normalization that the network wants.
        size: Height and width in pixels that the network wants, None for the same.
    """

    def __init__(self, old: Normalize, new: Normalize, size: int | None = None):
        super().__init__()
        m, s, new_m, new_s = (torch.tensor(v).view(-1, 1, 1) for v in (*old, *new))
        self.size = size
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", s / new_s)
        self.register_buffer("shift", (m - new_m) / new_s)

    def forward(self, batch: Batch) -> Tensor:
        """Return images `[B, 3, size, size]` of images `[B, 3, H, W]`."""
        x: Tensor = batch.x
        if self.size not in (None, x.shape[-1]):
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        return x * self.scale + self.shift

    def extra_repr(self) -> str:
        return f"size={self.size}"
