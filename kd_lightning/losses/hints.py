"""Methods that map the student's features to the teacher's and compare them element by element."""

import math
from itertools import pairwise
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


class FitNets(Method):
    """Hints: mean squared error of the teacher's map and the student's after a 1×1 convolution.

    Matches: a map in the middle
    Formula: `mean (r(f_s) − f_t)²`
    Paper: Romero et al. 2015, arXiv 1412.6550
    """

    def __init__(self, student_layers: Any = 2, teacher_layers: Any = 2, alpha: Any = 100.0, ce_weight: Any = 1.0):
        super().__init__(alpha, ce_weight)
        self.layers = Layers(student_layers, teacher_layers, dims=4)
        self.regressors = nn.ModuleList()

    def prepare(self, networks: Networks) -> None:
        for s, t in self.layers.find(networks):
            self.regressors.append(nn.Sequential(nn.Conv2d(s[0], t[0], 1, bias=False), nn.BatchNorm2d(t[0])))

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        pairs = zip(self.regressors, self.layers.pairs(student, teacher), strict=True)
        return torch.stack([L.hint(resize(regress(s), t), t) for regress, (s, t) in pairs]).sum()


class VID(Method):
    """Variational information distillation: the teacher's map as a Gaussian around what the student says of it.

    Three 1×1 convolutions give its mean, and a trained number per channel its variance, `variance` at first.

    Matches: maps of all stages
    Formula: `mean ½[(μ(f_s) − f_t)²/σ² + ln σ²]`
    Paper: Ahn et al. 2019, arXiv 1904.05835
    """

    def __init__(
        self,
        student_layers: Any = "all",
        teacher_layers: Any = "all",
        variance: float = 5.0,
        alpha: Any = 1.0,
        ce_weight: Any = 1.0,
    ):
        super().__init__(alpha, ce_weight)
        self.layers = Layers(student_layers, teacher_layers, dims=4)
        self.variance = number("loss.variance", variance, gt=1e-5)
        self.regressors = nn.ModuleList()
        self.log_scales = nn.ParameterList()

    def prepare(self, networks: Networks) -> None:
        start = math.log(math.expm1(self.variance - 1e-5))  # of softplus(log_scale) + 1e-5
        for s, t in self.layers.find(networks):
            widths = (s[0], t[0], t[0], t[0])
            layers: list[nn.Module] = []
            for a, b in pairwise(widths):
                layers += [nn.Conv2d(a, b, 1, bias=False), nn.ReLU()]
            self.regressors.append(nn.Sequential(*layers[:-1]))
            self.log_scales.append(nn.Parameter(torch.full((t[0],), start)))

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        values = []
        for i, (s, t) in enumerate(self.layers.pairs(student, teacher)):
            values.append(L.vid(resize(self.regressors[i](s), t), t, self.log_scales[i]))
        return torch.stack(values).sum()
