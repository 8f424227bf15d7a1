"""Contrastive representation distillation."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kd_lightning.losses import functional as L
from kd_lightning.losses.functional.contrast import unit
from kd_lightning.losses.gather import broadcast, gather_batch
from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.losses.relations import embedding, pair_of_layers
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import UserError, integer, number

SETTLED = 10
"""Steps in which `log_z` is estimated if it is not known yet: the batches before may not have been finite."""


class CRD(Method):
    """Tells a sample's partner in the other network's memory from samples of other classes.

    The memories hold an embedding of every training sample (`Batch.index`), and the label that it was last seen with; a
    sample not seen yet counts as of another class. The batch is gathered over all processes, and the negatives are a
    function of the number of steps, so that all processes draw the same and a resumed run draws what it would have
    drawn.

    Args:
        student_layers: One layer of the student.
        teacher_layers: One layer of the teacher.
        negatives: Number of samples of other classes, drawn for each sample.
        tau: Temperature of the contrast, > 0.
        momentum: Share of the old embedding in the new one, in [0, 1].
        width: Width of the embeddings.

    Raises:
        UserError: For a wrong value.

    Matches: embeddings of pooled features, against a memory
    Formula: `−ln h(positive) − Σ ln(1 − h(negative))`, `h = q/(q + m/N)`, `q = exp(v·memory/τ)/Z`, both ways
    Paper: Tian et al. 2020, arXiv 1910.10699
    """

    needs_labels = True

    def __init__(
        self,
        student_layers: Any = "pooled",
        teacher_layers: Any = "pooled",
        negatives: int = 16384,
        tau: float = 0.07,
        momentum: float = 0.5,
        width: int = 128,
        alpha: Any = 0.8,
        ce_weight: Any = 1.0,
    ):
        super().__init__(alpha, ce_weight)
        self.layers = pair_of_layers(student_layers, teacher_layers)
        self.negatives = integer("loss.negatives", negatives, ge=1)
        self.tau = number("loss.tau", tau, gt=0)
        self.momentum = number("loss.momentum", momentum, ge=0, le=1)
        self.width = integer("loss.width", width, ge=1)
        self.embeddings = nn.ModuleList()
        self.steps = 0
        # No buffers: DDP would send these in every step (46 MB for 45,000 samples), though all processes, which see the
        # same gathered batches, change them alike.
        self.state: dict[str, Tensor] = {}

    def prepare(self, networks: Networks) -> None:
        self.embeddings.extend(embedding(shape, self.width) for shape in self.layers.find(networks)[0])
        n = networks.num_samples
        if not n:
            raise UserError(
                "CRD remembers each training sample by its number, which these batches lack; use kd_lightning.train"
            )
        for name in ("memory_s", "memory_t"):
            self.state[name] = F.normalize(torch.randn(n, self.width))
        self.state["labels"] = torch.full((n,), -1)
        self.state["log_z"] = torch.zeros(2)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CRD":
        super()._apply(fn, recurse)
        self.state = {name: fn(value) for name, value in self.state.items()}
        return self

    def get_extra_state(self) -> dict[str, Any]:
        return {"steps": self.steps} | self.state

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.state = {name: state[name].to(value, copy=True) for name, value in self.state.items()}

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Tensor:
        """Return the contrastive loss of both networks' embeddings in nats, and move the memories."""
        pair = self.layers.pair(student, teacher)
        v_s, v_t = (gather_batch(unit(embed(f))) for embed, f in zip(self.embeddings, pair, strict=True))
        y, index = gather_batch(batch.y), gather_batch(batch.index)
        if self.steps == 0:
            self.state = {name: broadcast(value) for name, value in self.state.items()}
        memory_s, memory_t = self.state["memory_s"], self.state["memory_t"]
        labels = self.state["labels"].index_copy(0, index, y)
        contrast = torch.cat([index[:, None], self._draw(labels, y)], dim=1)
        if self.steps < SETTLED:
            z = [L.crd_log_z(v, memory, contrast, self.tau) for v, memory in ((v_s, memory_t), (v_t, memory_s))]
            new, before = torch.stack(z), self.state["log_z"]
            self.state["log_z"] = torch.where(before.isfinite(), before, new) if self.steps else new
        log_z = self.state["log_z"]
        loss = L.crd(v_s, memory_t, contrast, log_z[0], self.tau)
        loss = loss + L.crd(v_t, memory_s, contrast, log_z[1], self.tau)
        self.state |= {
            "labels": labels,
            "memory_s": self._moved(memory_s, index, v_s),
            "memory_t": self._moved(memory_t, index, v_t),
        }
        self.steps += 1
        return loss

    def _moved(self, memory: Tensor, index: Tensor, v: Tensor) -> Tensor:
        new = L.crd_update(memory, index, v, self.momentum).to(memory.dtype)
        new = torch.where(new.isfinite().all(1, keepdim=True), new, memory[index])  # what is not finite moves no row
        return memory.index_copy(0, index, new)  # a new tensor: the backward pass still needs the old one

    def _draw(self, labels: Tensor, y: Tensor) -> Tensor:
        """Return samples of classes other than y `[B]`, `[B, negatives]`, each as likely, with replacement."""
        order = labels.argsort()
        ordered = labels[order]
        start, end = torch.searchsorted(ordered, y), torch.searchsorted(ordered, y, right=True)
        others = (len(order) - (end - start)).clamp(min=1)
        generator = torch.Generator(y.device).manual_seed(self.steps)
        share = torch.rand(len(y), self.negatives, generator=generator, device=y.device, dtype=torch.float64)
        rank = (share * others[:, None]).long()
        rank = rank + (rank >= start[:, None]) * (end - start)[:, None]  # skip over the own class
        return order[rank.clamp(max=len(order) - 1)]
