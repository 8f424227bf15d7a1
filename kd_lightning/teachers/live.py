"""A teacher that is run on every batch."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from kd_lightning.data import Normalize
from kd_lightning.taps import Tap
from kd_lightning.types import Batch, Outputs


class Teacher(Protocol):
    """Answers a batch with frozen outputs. Not an `nn.Module`, so that no one trains, saves or wraps it by accident."""

    model: nn.Module

    def start_epoch(self, epoch: int) -> None:
        """Is told the epoch before its first training batch."""

    def __call__(self, batch: Batch) -> Outputs:
        """Answers a training batch."""

    def evaluate(self, batch: Batch) -> Outputs:
        """Answers a validation or test batch."""

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Moves or casts the teacher's tensors as `nn.Module._apply` does."""


class Renormalize(nn.Module):
    """Takes images `[B, 3, H, W]` normalized with one mean and standard deviation to another pair."""

    def __init__(self, old: Normalize, new: Normalize):
        super().__init__()
        m, s, new_m, new_s = (torch.tensor(v).view(-1, 1, 1) for v in (*old, *new))
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", s / new_s)
        self.register_buffer("shift", (m - new_m) / new_s)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class LiveTeacher:
    """One frozen model in eval mode, run without gradients.

    Not in inference mode: a student's loss may save the teacher's activations for its own backward pass.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str] = (), renormalize: Renormalize | None = None):
        self.model = model.eval().requires_grad_(False)
        self.renormalize = renormalize
        self._tap = Tap(self.model, layers)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Outputs:
        return self._tap(batch.x if self.renormalize is None else self.renormalize(batch.x))

    def evaluate(self, batch: Batch) -> Outputs:
        """The same: a live teacher does not care what a batch is for."""
        return self(batch)

    def start_epoch(self, epoch: int) -> None:
        """Nothing changes."""

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        self.model._apply(fn)
        if self.renormalize is not None:
            self.renormalize._apply(fn)
