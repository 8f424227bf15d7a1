"""Ordinary training: the equal-budget baseline of every distillation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import number


def task_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy of logits `[B, C]` with the labels, in nats; of a mixed picture, with both in their shares."""
    if batch.mixed is None:
        return F.cross_entropy(logits.float(), batch.y)
    own, other = (F.cross_entropy(logits.float(), y, reduction="none") for y in (batch.y, batch.mixed.y))
    return torch.lerp(other, own, batch.mixed.share).mean()


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
        ce = task_loss(student.logits, batch)
        return {"loss": self.ce_weight * ce, "ce": ce}
