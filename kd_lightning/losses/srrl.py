"""Softmax regression representation learning."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.losses import functional as L
from kd_lightning.losses.layers import Layers
from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.losses.schedule import Schedule
from kd_lightning.types import Batch, Outputs


class SRRL(Method):
    """The student's projected features match the teacher's pooled ones, also in the logits of the teacher's classifier.

    Args:
        student_layers: One layer of the student.
        feature: Weight of the features' error.
        head: Weight of the logits' error.

    Matches: pooled features, and what the teacher's classifier makes of them
    Formula: `feature·mean (r(f_s) − v_t)² + head·mean (W·r(f_s) − W·v_t)²`
    Paper: Yang et al., ICLR 2021
    """

    def __init__(
        self,
        student_layers: Any = "last",
        feature: Any = 1.0,
        head: Any = 1.0,
        alpha: Any = 1.0,
        ce_weight: Any = 1.0,
    ):
        super().__init__(alpha, ce_weight)
        self.layers = Layers(student_layers, "pooled")
        self.feature, self.head = Schedule("loss.feature", feature, ge=0), Schedule("loss.head", head, ge=0)

    def prepare(self, networks: Networks) -> None:
        assert networks.teacher is not None
        ((s, t),) = self.layers.find(networks)
        self.projector = nn.Sequential(nn.Conv2d(s[0], t[0], 1, bias=False), nn.BatchNorm2d(t[0]), nn.ReLU())
        self._classifier = (networks.teacher.head,)  # in a tuple, so that it does not become this module's own

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        s, t = self.layers.pair(student, teacher)
        (classifier,) = self._classifier
        s = self.projector(s[:, :, None, None] if s.dim() == 2 else s).mean((2, 3))
        # not `teacher.logits`, which may be in the data's order of classes instead of the teacher's own
        logits_s, logits_t = (F.linear(v, classifier.weight, classifier.bias) for v in (s, t))
        return {"feature": self.feature() * L.hint(s, t), "head": self.head() * L.hint(logits_s, logits_t)}
