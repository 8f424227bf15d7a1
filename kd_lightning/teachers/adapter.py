"""A teacher that was trained elsewhere: its own normalization, input size and order of classes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.data import Normalize


class View(nn.Module):
    """Takes the student's images to what the teacher was trained on, and its logits to the data's classes.

    `old` is the data's normalization, `new` the teacher's; `size` the teacher's image size in pixels, None for the
    same; `order[c]` is the teacher's output for class c of the data, None for the same order.
    """

    def __init__(self, old: Normalize, new: Normalize, size: int | None = None, order: Sequence[int] | None = None):
        super().__init__()
        m, s, new_m, new_s = (torch.tensor(v).view(-1, 1, 1) for v in (*old, *new))
        self.size = size
        self.scale: Tensor
        self.shift: Tensor
        self.order: Tensor | None
        self.register_buffer("scale", s / new_s)
        self.register_buffer("shift", (m - new_m) / new_s)
        self.register_buffer("order", None if order is None else torch.tensor(list(order)))

    def images(self, x: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` as the teacher wants them, `[B, 3, size, size]`."""
        if self.size not in (None, x.shape[-1]):
            x = F.interpolate(x, self.size, mode="bilinear", antialias=True)
        return x * self.scale + self.shift

    def logits(self, logits: Tensor) -> Tensor:
        """The teacher's logits `[B, C']` in the data's classes `[B, C]`."""
        return logits if self.order is None else logits.index_select(1, self.order)
