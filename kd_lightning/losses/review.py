"""Knowledge review."""

from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.losses import functional as L
from kd_lightning.losses.functional.sizes import enlarge, resize
from kd_lightning.losses.layers import Layers
from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import integer

WARM_UP = {"schedule": "linear", "start": 0.0, "end": 5.0, "epochs": 20}


class ReviewKD(Method):
    """Deep student features, fused step by step into the shallower ones, match the teacher's.

    Stages are compared and, as maps of one pixel, the pooled features.

    Args:
        student_layers: Layers of the student that give maps.
        teacher_layers: Layers of the teacher, as many.
        width: Channels of the fused maps.

    Matches: maps of all stages, fused from deep to shallow
    Formula: `Σ_layers Σ_n w_n·mean (pool_n(a(f_s)) − pool_n(f_t))²`, n = all, 4, 2, 1
    Paper: Chen et al. 2021, arXiv 2104.09044
    """

    least_batch = 2  # BatchNorm cannot train on the one pixel of a single sample

    def __init__(
        self,
        student_layers: Any = "all",
        teacher_layers: Any = "all",
        width: int = 64,
        alpha: Any = WARM_UP,
        ce_weight: Any = 1.0,
    ):
        super().__init__(alpha, ce_weight)
        self.layers = Layers(student_layers, teacher_layers, dims=4)
        self.pooled = Layers("pooled", "pooled", dims=2)
        self.width = integer("loss.width", width, ge=1)
        self.fusions = nn.ModuleList()  # from deep to shallow, as they run

    def prepare(self, networks: Networks) -> None:
        shapes = self.layers.find(networks) + self.pooled.find(networks)
        for deepest, (s, t) in zip([True] + [False] * len(shapes), reversed(shapes), strict=False):
            self.fusions.append(Fusion(s[0], self.width, t[0], deepest))

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        pooled = [(s[:, :, None, None], t[:, :, None, None]) for s, t in self.pooled.pairs(student, teacher)]
        fused, answers, targets = None, [], []
        for fusion, (s, t) in zip(self.fusions, reversed(self.layers.pairs(student, teacher) + pooled), strict=True):
            fused, answer = fusion(s, fused)
            answers.append(resize(answer, t))
            targets.append(t)
        return L.hierarchical_context(answers, targets)


class Fusion(nn.Module):
    """ABF (section 3.3): attention chooses, pixel by pixel, between a map and the deeper one, enlarged to its size."""

    def __init__(self, inputs: int, width: int, outputs: int, deepest: bool):
        super().__init__()
        self.reduce = nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width))
        self.attend = None if deepest else nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid())
        self.answer = nn.Sequential(nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, f: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the fused map `[B, width, H, W]` for the next and the answer `[B, outputs, H, W]` for the teacher."""
        f = self.reduce(f)
        if self.attend is not None and deeper is not None:
            deeper = enlarge(deeper, (f.shape[2], f.shape[3]))
            weight = self.attend(torch.cat([f, deeper], dim=1))
            f = f * weight[:, :1] + deeper * weight[:, 1:]
        return f, self.answer(f)
