"""Methods that compare the logits of one sample at a time."""

from typing import Any

from torch import Tensor

from kd_lightning.losses import functional as L
from kd_lightning.losses.logit_method import LogitMethod, logits
from kd_lightning.losses.method import Method
from kd_lightning.losses.schedule import Schedule
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import UserError, number

WARM_UP = {"schedule": "linear", "start": 0.0, "end": 1.0, "epochs": 20}


class DKD(LogitMethod):
    """Decoupled distillation: the target class's share, and `beta` times that of the others.

    Matches: logits, target and others apart
    Formula: `T²·[target·KL(b_t ‖ b_s) + beta·KL(p̂_t ‖ p̂_s)]`, `b = [p(y), 1 − p(y)]`, p̂ without y
    Paper: Zhao et al. 2022, arXiv 2203.08679
    """

    needs_labels = True

    def __init__(
        self,
        temperature: Any = 4.0,
        beta: Any = 8.0,
        target: Any = 1.0,
        standardize: bool = False,
        alpha: Any = WARM_UP,
        ce_weight: Any = 1.0,
    ):
        super().__init__(temperature, alpha, ce_weight, standardize)
        self.beta = Schedule("loss.beta", beta, ge=0)
        self.target = Schedule("loss.target", target, ge=0)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        s, t = self.logits(student, teacher)
        return L.dkd(s, t, batch.y, self.target(), self.beta(), self.temperature())


class NKD(LogitMethod):
    """Normalized distillation: the target's cross-entropy, and `gamma` times that of the others.

    Matches: logits, target and others apart
    Formula: `−p_t(y)·ln p_s(y) + gamma·T²·CE(p̂_t(T), p̂_s(T))`
    Paper: Yang et al. 2023, arXiv 2303.13005
    """

    needs_labels = True

    def __init__(
        self,
        temperature: Any = 1.0,
        gamma: Any = 1.5,
        standardize: bool = False,
        alpha: Any = 1.0,
        ce_weight: Any = 1.0,
    ):
        super().__init__(temperature, alpha, ce_weight, standardize)
        self.gamma = Schedule("loss.gamma", gamma, ge=0)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        s, t = self.logits(student, teacher)
        return L.nkd(s, t, batch.y, self.gamma(), self.temperature())


class WSLD(LogitMethod):
    """Weighted soft labels: samples that the student knows better than the teacher count less.

    Matches: logits, samples weighted
    Formula: `T²·w·CE(p_t(T), p_s(T))`, `w = 1 − exp(−CE_s/CE_t)`
    Paper: Zhou et al. 2021, arXiv 2102.00650
    """

    needs_labels = True

    def __init__(self, temperature: Any = 4.0, standardize: bool = False, alpha: Any = 2.25, ce_weight: Any = 1.0):
        super().__init__(temperature, alpha, ce_weight, standardize)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        s, t = self.logits(student, teacher)
        return L.wsld(s, t, batch.y, self.temperature())


class RLD(LogitMethod):
    """Refined logits: the teacher's confidence goes to the label's class; its ranking is taught only below the label.

    Args:
        temperature: T of the ranking.
        beta: Weight of the ranking.
        confidence: Weight of the confidence.
        confidence_temperature: T of the confidence.
        standardize: Give the logits of both networks mean 0 and standard deviation 1.

    Matches: logits, corrected by the label
    Formula: `confidence·T_c²·KL([max p_t, …] ‖ [p_s(y), …]) + beta·T²·KL(m_t ‖ m_s)`, m without what t ranks above y
    Paper: Sun et al. 2024, arXiv 2408.07394
    """

    needs_labels = True

    def __init__(
        self,
        temperature: Any = 4.0,
        beta: Any = 8.0,
        confidence: Any = 1.0,
        confidence_temperature: Any = 1.0,
        standardize: bool = False,
        alpha: Any = WARM_UP,
        ce_weight: Any = 1.0,
    ):
        super().__init__(temperature, alpha, ce_weight, standardize)
        self.beta = Schedule("loss.beta", beta, ge=0)
        self.confidence = Schedule("loss.confidence", confidence, ge=0)
        self.confidence_temperature = Schedule("loss.confidence_temperature", confidence_temperature, gt=0)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        s, t = self.logits(student, teacher)
        weights = self.confidence(), self.beta()
        return L.rld(s, t, batch.y, *weights, self.temperature(), self.confidence_temperature())


class Hard(Method):
    """The teacher's decision as a second label; no temperature.

    Matches: the teacher's decision
    Formula: `CE(argmax z_t, p_s)`
    Paper: Touvron et al. 2021, arXiv 2012.12877
    """

    def __init__(self, alpha: Any = 0.5, ce_weight: Any = 0.5):
        super().__init__(alpha, ce_weight)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return L.hard(*logits(student, teacher))


class TeacherFree(LogitMethod):
    """A hand-made teacher, so that none is run: it gives the label the probability `correct` and all others the same.

    Matches: a hand-made distribution
    Formula: `T²·KL(p_d(T) ‖ p_s(T))`, `p_d(y) = correct`
    Paper: Yuan et al. 2020, arXiv 1909.11723
    """

    needs_labels = True

    needs_teacher = False

    def __init__(self, temperature: Any = 20.0, correct: float = 0.99, alpha: Any = 0.1, ce_weight: Any = 0.9):
        super().__init__(temperature, alpha, ce_weight)
        self.correct = number("loss.correct", correct, gt=0)
        if self.correct >= 1:
            raise UserError(f"loss.correct must be a number > 0 and < 1, got {correct!r}")

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return L.teacher_free(student.logits, batch.y, self.correct, self.temperature())
