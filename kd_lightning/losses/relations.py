"""Methods that compare the samples of a batch with each other by their features; gathered over all processes."""

from typing import Any

from torch import Tensor, nn

from kd_lightning.losses import functional as L
from kd_lightning.losses.gather import gather_batch
from kd_lightning.losses.layers import Layers, one
from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.losses.schedule import Schedule
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import integer


class SP(Method):
    """Similarity preserving.

    Matches: similarities between samples, of the last map
    Formula: `‖G_t − G_s‖²/B²`, G = F·Fᵀ with rows of norm 1
    Paper: Tung and Mori 2019, arXiv 1907.09682
    """

    least_batch = 2

    def __init__(
        self, student_layers: Any = "last", teacher_layers: Any = "last", alpha: Any = 3000.0, ce_weight: Any = 1.0
    ):
        super().__init__(alpha, ce_weight)
        self.layers = pair_of_layers(student_layers, teacher_layers)

    def prepare(self, networks: Networks) -> None:
        self.layers.find(networks)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        return L.similarity(*map(gather_batch, self.layers.pair(student, teacher)))


class PKT(Method):
    """Probabilistic knowledge transfer.

    Matches: similarities between samples, of pooled features
    Formula: `mean_ij p_t·ln(p_t/p_s)`, p = cosines in [0, 1], rows of sum 1
    Paper: Passalis and Tefas 2018, arXiv 1803.10837
    """

    least_batch = 2

    def __init__(
        self, student_layers: Any = "pooled", teacher_layers: Any = "pooled", alpha: Any = 30000.0, ce_weight: Any = 1.0
    ):
        super().__init__(alpha, ce_weight)
        self.layers = pair_of_layers(student_layers, teacher_layers)

    def prepare(self, networks: Networks) -> None:
        self.layers.find(networks)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        s, t = map(gather_batch, self.layers.pair(student, teacher))
        return L.pkt(s.flatten(1), t.flatten(1))


class RKD(Method):
    """Relational distillation: `distance` times that of pairs, `angle` times that of triples.

    Matches: distances and angles between samples, of pooled features
    Formula: `distance·H(ψ_s, ψ_t) + angle·H(cos_s, cos_t)`, H = smooth L1, ψ = distances over their mean
    Paper: Park et al. 2019, arXiv 1904.05068
    """

    least_batch = 3

    def __init__(
        self,
        student_layers: Any = "pooled",
        teacher_layers: Any = "pooled",
        distance: Any = 25.0,
        angle: Any = 50.0,
        alpha: Any = 1.0,
        ce_weight: Any = 1.0,
    ):
        super().__init__(alpha, ce_weight)
        self.layers = pair_of_layers(student_layers, teacher_layers)
        self.distance = Schedule("loss.distance", distance, ge=0)
        self.angle = Schedule("loss.angle", angle, ge=0)

    def prepare(self, networks: Networks) -> None:
        self.layers.find(networks)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        s, t = (gather_batch(f).flatten(1) for f in self.layers.pair(student, teacher))
        return {"distance": self.distance() * L.rkd_distance(s, t), "angle": self.angle() * L.rkd_angle(s, t)}


class CC(Method):
    """Correlation congruence of linear embeddings of both networks' features.

    Matches: embeddings, neighbours in the batch
    Formula: `mean_i Σ_d |δ_i|·|δ_{i+1}|`, `δ = e(v_s) − e(v_t)`
    Paper: Peng et al. 2019, arXiv 1904.01802
    """

    least_batch = 2

    def __init__(
        self,
        student_layers: Any = "pooled",
        teacher_layers: Any = "pooled",
        width: int = 128,
        alpha: Any = 0.02,
        ce_weight: Any = 1.0,
    ):
        super().__init__(alpha, ce_weight)
        self.layers = pair_of_layers(student_layers, teacher_layers)
        self.width = integer("loss.width", width, ge=1)
        self.embeddings = nn.ModuleList()

    def prepare(self, networks: Networks) -> None:
        ((s, t),) = self.layers.find(networks)
        self.embeddings.extend(embedding(shape, self.width) for shape in (s, t))

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        pair = self.layers.pair(student, teacher)
        s, t = (gather_batch(embed(f)) for embed, f in zip(self.embeddings, pair, strict=True))
        return L.correlation(s, t)


def pair_of_layers(student_layers: Any, teacher_layers: Any, dims: int | None = None) -> Layers:
    """Return `Layers` of one pair. Raises UserError if several are named."""
    return Layers(one("loss.student_layers", student_layers), one("loss.teacher_layers", teacher_layers), dims)


def embedding(shape: tuple[int, ...], width: int) -> nn.Module:
    """Return a linear map from an activation `[B, *shape]` to `[B, width]`."""
    inputs = 1
    for n in shape:
        inputs *= n
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, width))
