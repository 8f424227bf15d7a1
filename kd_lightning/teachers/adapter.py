"""An adapter between the data and a teacher that was trained elsewhere."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.data.translation import Translation
from kd_lightning.types import Batch


class TeacherAdapter(nn.Module):
    """Translates the student's inputs for the teacher, and the teacher's logits to the classes of the data.

    Args:
        translate: From the student's batch to the teacher's inputs, None for the same inputs.
        order: `order[c]` is the teacher's output for class c of the data, None for the same order.
    """

    def __init__(self, translate: Translation | None = None, order: Sequence[int] | None = None):
        super().__init__()
        self.translate = translate
        self.order: Tensor | None
        self.register_buffer("order", None if order is None else torch.tensor(list(order)))

    @property
    def reads_raw(self) -> bool:
        """True if the teacher's inputs do not depend on the student's."""
        return self.translate is not None and self.translate.reads_raw

    def inputs(self, batch: Batch) -> Any:
        """Return the inputs as the teacher wants them."""
        return batch.x if self.translate is None else self.translate(batch)

    def logits(self, logits: Tensor) -> Tensor:
        """Return the teacher's logits `[B, C']` in the order of the data's classes, `[B, C]`."""
        return logits if self.order is None else logits.index_select(1, self.order)
