"""Contrastive representation distillation."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.losses import functional as L
from kd_lightning.losses.functional.contrast import unit
from kd_lightning.losses.gather import gather_batch
from kd_lightning.losses.relations import embedding, pair_of_layers
from kd_lightning.models.probe import Networks
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import integer, number


class CRD(nn.Module):
    """Tells a sample's partner in the other network's memory from `negatives` samples of other classes.

    The memories hold an embedding of every training image (`Batch.index`), moved by `momentum` each time it is seen.
    A sample whose label was not seen yet counts as of another class. Gathered over all processes. The negatives drawn
    are a function of the number of steps, so that a run that goes on draws what it would have drawn.

    Matches: embeddings of pooled features, against a memory
    Formula: `−ln h(positive) − Σ ln(1 − h(negative))`, `h = q/(q + m/N)`, `q = exp(v·memory/τ)/Z`, both ways
    Paper: Tian et al. 2020, arXiv 1910.10699
    """

    def __init__(
        self,
        student_layers: Any = "pooled",
        teacher_layers: Any = "pooled",
        negatives: int = 16384,
        tau: float = 0.07,
        momentum: float = 0.5,
        width: int = 128,
    ):
        super().__init__()
        self.layers = pair_of_layers(student_layers, teacher_layers)
        self.negatives = integer("loss.negatives", negatives, least=1)
        self.tau = number("loss.tau", tau, above=0)
        self.momentum = number("loss.momentum", momentum, least=0, most=1)
        self.width = integer("loss.width", width, least=1)
        self.embeddings = nn.ModuleList()
        self.steps = 0

    def prepare(self, networks: Networks) -> None:
        self.embeddings.extend(embedding(shape, self.width) for shape in self.layers.find(networks)[0])
        n = networks.num_samples
        for name in ("memory_s", "memory_t"):
            self.register_buffer(name, F.normalize(torch.randn(n, self.width)))
        self.register_buffer("labels", torch.full((n,), -1))
        self.register_buffer("log_z", torch.zeros(2))

    def get_extra_state(self) -> int:
        return self.steps

    def set_extra_state(self, state: int) -> None:
        self.steps = state

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        pair = self.layers.pair(student, teacher)
        v_s, v_t = (gather_batch(unit(embed(f))) for embed, f in zip(self.embeddings, pair, strict=True))
        y, index = gather_batch(batch.y), gather_batch(batch.index)
        self.labels: Tensor = self.labels.index_copy(0, index, y)
        contrast = torch.cat([index[:, None], self.draw(y)], dim=1)
        if self.steps == 0:
            z = [L.crd_log_z(v, m, contrast, self.tau) for v, m in ((v_s, self.memory_t), (v_t, self.memory_s))]
            self.log_z: Tensor = torch.stack(z)
        loss = L.crd(v_s, self.memory_t, contrast, self.log_z[0], self.tau)
        loss = loss + L.crd(v_t, self.memory_s, contrast, self.log_z[1], self.tau)
        self.memory_s: Tensor = self._moved(self.memory_s, index, v_s)
        self.memory_t: Tensor = self._moved(self.memory_t, index, v_t)
        self.steps += 1
        return loss

    def _moved(self, memory: Tensor, index: Tensor, v: Tensor) -> Tensor:
        # a new tensor: the backward pass still needs the old one
        return memory.index_copy(0, index, L.crd_update(memory, index, v, self.momentum).to(memory.dtype))

    def draw(self, y: Tensor) -> Tensor:
        """Samples of classes other than y `[B]`, `[B, negatives]`, each of them as likely, with replacement."""
        order = self.labels.argsort()
        ordered = self.labels[order]
        start, end = torch.searchsorted(ordered, y), torch.searchsorted(ordered, y, right=True)
        others = (len(order) - (end - start)).clamp(min=1)
        generator = torch.Generator(y.device).manual_seed(self.steps)
        share = torch.rand(len(y), self.negatives, generator=generator, device=y.device, dtype=torch.float64)
        rank = (share * others[:, None]).long()
        rank = rank + (rank >= start[:, None]) * (end - start)[:, None]  # skip over the own class
        return order[rank.clamp(max=len(order) - 1)]
