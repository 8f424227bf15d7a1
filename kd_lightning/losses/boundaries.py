"""Methods that compare maps before their ReLU."""

from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.losses import functional as L
from kd_lightning.losses.functional.sizes import resize
from kd_lightning.losses.layers import Layers
from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import number


class AB(Method):
    """Activation boundaries: the student is to be active just where the teacher is.

    Matches: maps before their ReLU, sign only
    Formula: `3/1000 · Σ relu(margin ∓ f_s)²`, − where f_t > 0
    Paper: Heo et al. 2019, arXiv 1811.03233
    """

    def __init__(
        self,
        student_layers: Any = "before_relu",
        teacher_layers: Any = "before_relu",
        margin: float = 1.0,
        alpha: Any = 1.0,
        ce_weight: Any = 1.0,
    ):
        super().__init__(alpha, ce_weight)
        self.layers = Layers(student_layers, teacher_layers, dims=4)
        self.margin = number("loss.margin", margin, gt=0)
        self.connectors = nn.ModuleList()

    def prepare(self, networks: Networks) -> None:
        self.connectors.extend(_connector(s[0], t[0]) for s, t in self.layers.find(networks))

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        pairs = zip(self.connectors, self.layers.pairs(student, teacher), strict=True)
        return torch.stack([L.activation_boundary(resize(c(s), t), t, self.margin) for c, (s, t) in pairs]).sum()


class OFD(Method):
    """Overhaul of feature distillation; deeper layers count double of those before them.

    The margins are those of the teacher's BatchNorms, read where they stand: the teacher is neither copied nor changed.
    Its layers must end in BatchNorm and ReLU, or be BatchNorms themselves (as is found for WRN).

    Matches: maps before their ReLU
    Formula: `Σ (f_s − max(f_t, margin))²` unless `f_s ≤ target ≤ 0`
    Paper: Heo et al. 2019, arXiv 1904.01866
    """

    def __init__(
        self,
        student_layers: Any = "before_relu",
        teacher_layers: Any = "before_relu",
        alpha: Any = 1e-3,
        ce_weight: Any = 1.0,
    ):
        super().__init__(alpha, ce_weight)
        self.layers = Layers(student_layers, teacher_layers, dims=4)
        self.connectors = nn.ModuleList()

    def prepare(self, networks: Networks) -> None:
        assert networks.teacher is not None
        self.connectors.extend(_connector(s[0], t[0]) for s, t in self.layers.find(networks))
        # In a tuple, so that they do not become this module's own
        self._norms = tuple(networks.teacher.norm(name, "loss.teacher_layers") for name in self.layers.teacher)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        values = []
        for i, (s, t) in enumerate(self.layers.pairs(student, teacher)):
            norm: Any = self._norms[i]
            margin = L.ofd_margin(norm.weight.detach(), norm.bias.detach())
            values.append(L.ofd(resize(self.connectors[i](s), t), t, margin) / 2 ** (len(self._norms) - 1 - i))
        return torch.stack(values).sum()


def _connector(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
