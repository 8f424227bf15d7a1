"""An adapter between the data and a teacher that was trained elsewhere."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class TeacherAdapter(nn.Module):
    """Translates the student's inputs for the teacher, and the teacher's logits to the classes of the data.

    Args:
        translate: Module from the student's inputs to the teacher's, None for the same inputs.
        order: `order[c]` is the teacher's output for class c of the data, None for the same order.
    """

    def __init__(self, translate: nn.Module | None = None, order: Sequence[int] | None = None):
        super().__init__()
        self.translate = translate
        self.order: Tensor | None
        self.register_buffer("order", None if order is None else torch.tensor(list(order)))

    def inputs(self, x: Any) -> Any:
        """Return the inputs as the teacher wants them."""
        return x if self.translate is None else self.translate(x)

    def logits(self, logits: Tensor) -> Tensor:
        """Return the teacher's logits `[B, C']` in the order of the data's classes, `[B, C]`."""
        return logits if self.order is None else logits.index_select(1, self.order)
