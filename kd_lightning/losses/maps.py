"""Methods that compare feature maps as they are; nothing is trained but the student."""

from typing import Any

import torch
from torch import Tensor

from kd_lightning.losses import functional as L
from kd_lightning.losses.layers import Layers
from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import number


class Attention(Method):
    """Attention transfer, summed over the pairs of layers; `p` sharpens the attention.

    Matches: where the maps of all stages are active
    Formula: `Σ mean (Q_s − Q_t)²`, `Q = v/‖v‖`, `v = mean_c |f|^p`
    Paper: Zagoruyko and Komodakis 2017, arXiv 1612.03928
    """

    def __init__(
        self,
        student_layers: Any = "all",
        teacher_layers: Any = "all",
        p: float = 2.0,
        alpha: Any = 1000.0,
        ce_weight: Any = 1.0,
    ):
        super().__init__(alpha, ce_weight)
        self.layers = Layers(student_layers, teacher_layers, dims=4)
        self.p = number("loss.p", p, ge=1)  # below 1 the gradient at a zero of a ReLU's map is infinite

    def prepare(self, networks: Networks) -> None:
        self.layers.find(networks)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return torch.stack([L.attention(s, t, self.p) for s, t in self.layers.pairs(student, teacher)]).sum()


class NST(Method):
    """Neuron selectivity transfer, summed over the pairs of layers.

    Matches: what each channel is selective for, all stages
    Formula: `Σ [mean k(s, s) + mean k(t, t) − 2·mean k(s, t)]`, `k(a, b) = (aᵀb)²`
    Paper: Huang and Wang 2017, arXiv 1707.01219
    """

    def __init__(
        self, student_layers: Any = "all", teacher_layers: Any = "all", alpha: Any = 50.0, ce_weight: Any = 1.0
    ):
        super().__init__(alpha, ce_weight)
        self.layers = Layers(student_layers, teacher_layers, dims=4)

    def prepare(self, networks: Networks) -> None:
        self.layers.find(networks)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return torch.stack([L.nst(s, t) for s, t in self.layers.pairs(student, teacher)]).sum()
