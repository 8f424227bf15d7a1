"""Methods that compare the logits of the samples of a batch with each other; gathered over all processes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kd_lightning.losses import functional as L
from kd_lightning.losses.gather import gather_batch
from kd_lightning.losses.logit_method import LogitMethod
from kd_lightning.losses.schedule import Schedule
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import UserError, number


class DIST(LogitMethod):
    """Correlation of the probabilities: `beta` times that within samples, `gamma` times that within classes.

    Matches: correlations of probabilities, within samples and within classes
    Formula: `T²·[beta·(1 − mean_i ρ(P[i])) + gamma·(1 − mean_c ρ(P[:, c]))]`
    Paper: Huang et al. 2022, arXiv 2205.10536
    """

    least_batch = 2

    def __init__(
        self,
        temperature: Any = 4.0,
        beta: Any = 2.0,
        gamma: Any = 2.0,
        standardize: bool = False,
        alpha: Any = 1.0,
        ce_weight: Any = 1.0,
    ):
        super().__init__(temperature, alpha, ce_weight, standardize)
        self.beta = Schedule("loss.beta", beta, ge=0)
        self.gamma = Schedule("loss.gamma", gamma, ge=0)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        s, t = map(gather_batch, self.logits(student, teacher))
        return L.dist(s, t, self.beta(), self.gamma(), self.temperature())


class MLLD(LogitMethod):
    """Multi-level logit distillation: KD, class and batch correlation, summed over temperatures `temperature + steps`.

    One view of each image is compared: the paper's second, strongly augmented one, and the masks that its public code
    multiplies by an already averaged loss, are left out.

    Matches: logits, alone and by class and sample
    Formula: `Σ_T [kd + ‖P_sᵀP_s − P_tᵀP_t‖²/C + ‖P_sP_sᵀ − P_tP_tᵀ‖²/B]`
    Paper: Jin et al., CVPR 2023
    """

    def __init__(
        self,
        temperature: Any = 4.0,
        steps: Sequence[float] = (-2, -1, 0, 1, 2),
        standardize: bool = False,
        alpha: Any = 0.9,
        ce_weight: Any = 0.1,
    ):
        super().__init__(temperature, alpha, ce_weight, standardize)
        if not isinstance(steps, Sequence) or isinstance(steps, str) or not steps:
            raise UserError(f"loss.steps must be a list of numbers, got {steps!r}")
        self.steps = [number("loss.steps", step) for step in steps]
        lowest = min(self.T.start, self.T.end) + min(self.steps)
        if lowest <= 0:
            raise UserError(f"loss.temperature + loss.steps must stay above 0, got {lowest}")

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        s, t = map(gather_batch, self.logits(student, teacher))
        levels = (L.kd, L.class_correlation, L.batch_correlation)
        return torch.stack([level(s, t, self.temperature() + step) for step in self.steps for level in levels]).sum()
