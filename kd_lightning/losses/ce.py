"""Ordinary training: the equal-budget baseline of every distillation."""

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.checks import number
from kd_lightning.types import Batch, Outputs


class CE(nn.Module):
    """`ce_weight·CE(student, labels)`. Raises UserError if the weight is not positive.

    Matches: nothing: labels only
    Formula: `CE(p_s, y)`
    Paper: –
    """

    needs_teacher = False
    student_layers: tuple[str, ...] = ()
    teacher_layers: tuple[str, ...] = ()

    def __init__(self, ce_weight: float = 1.0):
        super().__init__()
        self.ce_weight = number("loss.ce_weight", ce_weight, above=0)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Logits `[B, C]`, labels `[B]`; returns scalars in nats: `loss` and its part `ce`."""
        ce = F.cross_entropy(student.logits.float(), batch.y)
        return {"loss": self.ce_weight * ce, "ce": ce}
