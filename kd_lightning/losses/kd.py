"""Logit distillation."""

import torch.nn.functional as F
from torch import Tensor, nn

from kd_lightning.checks import UserError, number
from kd_lightning.losses.functional import kd
from kd_lightning.types import Batch, Outputs


class KD(nn.Module):
    """Hinton distillation (arXiv 1503.02531, section 2): `ce_weight·CE + alpha·T²·KL(teacher ‖ student)`.

    `alpha = 0` is ordinary training, and the teacher is not run. Raises UserError if `temperature <= 0`, a weight is
    negative, or both are 0.
    """

    student_layers: tuple[str, ...] = ()
    teacher_layers: tuple[str, ...] = ()

    def __init__(self, temperature: float = 2.0, alpha: float = 0.5, ce_weight: float = 1.0):
        super().__init__()
        self.temperature = number("loss.temperature", temperature, above=0)
        self.alpha = number("loss.alpha", alpha, least=0)
        self.ce_weight = number("loss.ce_weight", ce_weight, least=0)
        if self.alpha == self.ce_weight == 0:
            raise UserError("loss.alpha and loss.ce_weight are both 0, so there is nothing to learn; set one above 0")
        self.needs_teacher = self.alpha > 0

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Logits `[B, C]`, labels `[B]`; returns scalars in nats: `loss` and its parts `ce`, `kd` (unweighted)."""
        ce = F.cross_entropy(student.logits.float(), batch.y)
        loss = self.ce_weight * ce
        if teacher is None:
            return {"loss": loss, "ce": ce}
        soft = kd(student.logits, teacher.logits, self.temperature)
        return {"loss": loss + self.alpha * soft, "ce": ce, "kd": soft}
