"""Flow of solution procedure."""

from typing import Any

from torch import Tensor

from kd_lightning.losses import functional as L
from kd_lightning.losses.layers import Layers
from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import UserError


class FSP(Method):
    """Products of two maps that follow each other; both networks need the same widths there.

    Matches: relations between layers
    Formula: `Σ ‖G_t − G_s‖²`, `G = F_iᵀF_{i+1}/(H·W)`
    Paper: Yim et al., CVPR 2017
    """

    def __init__(
        self, student_layers: Any = "all", teacher_layers: Any = "all", alpha: Any = 0.05, ce_weight: Any = 1.0
    ):
        super().__init__(alpha, ce_weight)
        self.layers = Layers(student_layers, teacher_layers, dims=4)

    def prepare(self, networks: Networks) -> None:
        """Find the layers. Raises UserError if the channels differ or there are fewer than two layers."""
        shapes = self.layers.find(networks)
        if len(shapes) < 2:
            raise UserError(
                "loss=fsp relates layers to each other, so it needs two or more of student and teacher each; here are "
                f"{', '.join(self.layers.student)} and {', '.join(self.layers.teacher)}"
            )
        for name, (s, t) in zip(self.layers.student, shapes, strict=True):
            if s[0] != t[0]:
                raise UserError(
                    f"loss.student_layers: {name} has {s[0]} channels and its teacher's layer {t[0]}, but FSP wants as "
                    "many; name other layers, or a student of the teacher's widths"
                )

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        s, t = zip(*self.layers.pairs(student, teacher), strict=True)
        return L.fsp(s, t)
