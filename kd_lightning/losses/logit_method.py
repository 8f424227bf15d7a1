"""Base class of methods that compare softened logits."""

from typing import Any

from torch import Tensor

from kd_lightning.losses import functional as L
from kd_lightning.losses.method import Method
from kd_lightning.losses.schedule import Schedule, flag
from kd_lightning.types import Outputs


class LogitMethod(Method):
    """Base class of methods that compare logits softened at a temperature.

    Args:
        temperature: T, > 0: a number or a schedule.
        alpha: Weight of the method.
        ce_weight: Weight of the cross-entropy on the labels.
        standardize: Give both networks' logits mean 0 and standard deviation 1 first (arXiv 2403.01427).

    Raises:
        UserError: For a wrong value.
    """

    def __init__(self, temperature: Any, alpha: Any, ce_weight: Any, standardize: bool = False):
        super().__init__(alpha, ce_weight)
        self.T = Schedule("loss.temperature", temperature, gt=0)
        self.standardize = flag("loss.standardize", standardize)

    def temperature(self) -> float:
        return self.T()

    def logits(self, student: Outputs, teacher: Outputs | None) -> tuple[Tensor, Tensor]:
        """Return the logits of student and teacher, `[B, C]` each, standardized if so configured."""
        s, t = logits(student, teacher)
        return (L.standardize(s), L.standardize(t)) if self.standardize else (s, t)


def logits(student: Outputs, teacher: Outputs | None) -> tuple[Tensor, Tensor]:
    """Return the logits of student and teacher, `[B, C]` each."""
    assert teacher is not None
    return student.logits, teacher.logits
