"""Factor transfer."""

from typing import Any

from torch import Tensor, nn

from kd_lightning.losses import functional as L
from kd_lightning.losses.functional.sizes import resize
from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.losses.relations import pair_of_layers
from kd_lightning.losses.schedule import Schedule
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import number


class FT(Method):
    """Factor transfer: a translator of the student's map matches a paraphraser of the teacher's.

    The paraphraser has `rate` times the teacher's channels and learns to rebuild the teacher's map, here in the same
    training (the paper trains it before); the student's loss does not reach it. `reconstruction` weighs that learning.

    Matches: the last map, after a learned encoder
    Formula: `mean |Q(F_s) − Q(F_t)|`, `Q = v/‖v‖`, `v = mean_c F²`
    Paper: Kim et al. 2018, arXiv 1802.04977
    """

    def __init__(
        self,
        student_layers: Any = "last",
        teacher_layers: Any = "last",
        rate: float = 0.5,
        reconstruction: Any = 0.005,
        alpha: Any = 200.0,
        ce_weight: Any = 1.0,
    ):
        super().__init__(alpha, ce_weight)
        self.layers = pair_of_layers(student_layers, teacher_layers, dims=4)
        self.rate = number("loss.rate", rate, gt=0)
        self.reconstruction = Schedule("loss.reconstruction", reconstruction, gt=0)

    def prepare(self, networks: Networks) -> None:
        ((s, t),) = self.layers.find(networks)
        factors = max(1, round(self.rate * t[0]))
        self.translator = nn.Sequential(_conv(s[0], factors), _conv(factors, factors))
        self.paraphraser = nn.Sequential(_conv(t[0], t[0]), _conv(t[0], factors))
        self.rebuild = nn.Sequential(_conv(factors, t[0]), nn.Conv2d(t[0], t[0], 3, padding=1))

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        s, t = self.layers.pair(student, teacher)
        factors = self.paraphraser(t)
        translated = self.translator(s)
        return {
            "factor": L.factor(resize(translated, factors), factors.detach()),
            "reconstruction": self.reconstruction() * L.hint(self.rebuild(factors), t),
        }


def _conv(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.1)
    )
