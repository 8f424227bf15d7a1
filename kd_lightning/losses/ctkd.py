"""Curriculum temperature: an adversary chooses T."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.losses.functional import ctkd_temperature, kd
from kd_lightning.losses.logit_method import logits
from kd_lightning.losses.method import Method
from kd_lightning.losses.schedule import Schedule, flag
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import UserError, number

CURRICULUM = {"schedule": "cosine", "start": 0.0, "end": 1.0, "epochs": 10}


class CTKD(Method):
    """KD at a temperature that is trained to make it harder, more and more so.

    `T = t_start + t_range·sigmoid(θ)` starts at `temperature`; θ's gradient is reversed and multiplied by `strength`.
    Standardized logits are refused: their loss is largest at a T near 1, to which it would fall. Raises UserError.

    Matches: logits, softened by a trained T
    Formula: `T²·KL(p_t(T) ‖ p_s(T))`, `T = t_start + t_range·sigmoid(θ)`
    Paper: Li et al. 2023, arXiv 2211.16231
    """

    def __init__(
        self,
        temperature: float = 15.62,
        t_start: float = 1.0,
        t_range: float = 20.0,
        strength: Any = CURRICULUM,
        standardize: bool = False,
        alpha: Any = 0.9,
        ce_weight: Any = 0.1,
    ):
        super().__init__(alpha, ce_weight)
        if flag("loss.standardize", standardize):
            raise UserError(
                "loss.standardize=true does not go with CTKD: its temperature would fall to about 1; use loss=kd_std"
            )
        self.t_start, self.t_range = number("loss.t_start", t_start, gt=0), number("loss.t_range", t_range, gt=0)
        share = (number("loss.temperature", temperature) - self.t_start) / self.t_range
        if not 0 < share < 1:
            top = self.t_start + self.t_range
            raise UserError(f"loss.temperature must be between {self.t_start} and {top}, got {temperature!r}")
        self.theta = nn.Parameter(torch.tensor(math.log(share / (1 - share))))
        self.strength = Schedule("loss.strength", strength, ge=0)

    def temperature(self) -> Tensor:
        """Return T as it stands, a scalar, with the gradient of the adversary: −strength times its own."""
        strength = self.strength()
        theta = (1 + strength) * self.theta.detach() - strength * self.theta
        return ctkd_temperature(theta, self.t_start, self.t_range)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return kd(*logits(student, teacher), self.temperature())
