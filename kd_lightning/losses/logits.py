"""Methods that compare the logits of one sample at a time."""

from typing import Any

from torch import Tensor, nn

from kd_lightning.checks import UserError, number
from kd_lightning.losses import functional as L
from kd_lightning.losses.kd import logits
from kd_lightning.losses.settings import Setting, flag
from kd_lightning.types import Batch, Outputs


class DKD(nn.Module):
    """Decoupled distillation (arXiv 2203.08679): the target class's share, and `beta` times that of the others."""

    def __init__(self, temperature: Any = 4.0, beta: Any = 8.0, target: Any = 1.0, standardize: bool = False):
        super().__init__()
        self.temperature = Setting("loss.temperature", temperature, above=0)
        self.beta = Setting("loss.beta", beta, least=0)
        self.target = Setting("loss.target", target, least=0)
        self.standardize = flag("loss.standardize", standardize)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        s, t = logits(student, teacher, self.standardize)
        return L.dkd(s, t, batch.y, self.target(), self.beta(), self.temperature())


class NKD(nn.Module):
    """Normalized distillation (arXiv 2303.13005): the target's cross-entropy, and `gamma` times that of the others."""

    def __init__(self, temperature: Any = 1.0, gamma: Any = 1.5, standardize: bool = False):
        super().__init__()
        self.temperature = Setting("loss.temperature", temperature, above=0)
        self.gamma = Setting("loss.gamma", gamma, least=0)
        self.standardize = flag("loss.standardize", standardize)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        s, t = logits(student, teacher, self.standardize)
        return L.nkd(s, t, batch.y, self.gamma(), self.temperature())


class WSLD(nn.Module):
    """Weighted soft labels (arXiv 2102.00650): less of the samples that the student knows better than the teacher."""

    def __init__(self, temperature: Any = 4.0, standardize: bool = False):
        super().__init__()
        self.temperature = Setting("loss.temperature", temperature, above=0)
        self.standardize = flag("loss.standardize", standardize)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        s, t = logits(student, teacher, self.standardize)
        return L.wsld(s, t, batch.y, self.temperature())


class RLD(nn.Module):
    """Refined logits (arXiv 2408.07394): the teacher's confidence, at a temperature of its own, goes to the label's
    class; its ranking is taught, `beta` times, only below the label."""

    def __init__(
        self,
        temperature: Any = 4.0,
        beta: Any = 8.0,
        confidence: Any = 1.0,
        confidence_temperature: Any = 1.0,
        standardize: bool = False,
    ):
        super().__init__()
        self.temperature = Setting("loss.temperature", temperature, above=0)
        self.beta = Setting("loss.beta", beta, least=0)
        self.confidence = Setting("loss.confidence", confidence, least=0)
        self.confidence_temperature = Setting("loss.confidence_temperature", confidence_temperature, above=0)
        self.standardize = flag("loss.standardize", standardize)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        s, t = logits(student, teacher, self.standardize)
        weights = self.confidence(), self.beta()
        return L.rld(s, t, batch.y, *weights, self.temperature(), self.confidence_temperature())


class Hard(nn.Module):
    """The teacher's decision as a second label (DeiT, arXiv 2012.12877, equation 3); no temperature."""

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return L.hard(*logits(student, teacher))


class TeacherFree(nn.Module):
    """A teacher made by hand, so that none is run: sure of the label by `correct`, and of all other classes alike
    (Tf-KD_reg, arXiv 1909.11723)."""

    needs_teacher = False

    def __init__(self, temperature: Any = 20.0, correct: float = 0.99):
        super().__init__()
        self.temperature = Setting("loss.temperature", temperature, above=0)
        self.correct = number("loss.correct", correct, above=0)
        if self.correct >= 1:
            raise UserError(f"loss.correct must be a number > 0 and < 1, got {correct!r}")

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return L.teacher_free(student.logits, batch.y, self.correct, self.temperature())
