"""A teacher that is run on every batch."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from kd_lightning.models.hooks import Tap
from kd_lightning.teachers.adapter import View
from kd_lightning.teachers.fold import for_inference
from kd_lightning.types import Batch, Outputs


class Teacher(Protocol):
    """Answers a batch with frozen outputs. Not an `nn.Module`, so that no one trains, saves or wraps it by accident."""

    models: list[nn.Module]
    """The networks that it runs, for counting their parameters."""

    def start_epoch(self, epoch: int) -> None:
        """Is told the epoch before its first training batch."""

    def __call__(self, batch: Batch) -> Outputs:
        """Answers a training batch."""

    def evaluate(self, batch: Batch) -> Outputs:
        """Answers a validation or test batch."""

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Moves or casts the teacher's tensors as `nn.Module._apply` does."""


class LiveTeacher:
    """One frozen model in eval mode, run without gradients.

    Not in inference mode: a student's loss may save the teacher's activations for its own backward pass.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str] = (), view: View | None = None):
        self.model = model.eval().requires_grad_(False)
        self.models = [self.model]
        self.view = view
        self._running, self._half = self.model, False
        self._tap = Tap(self.model, layers)

    def speed_up(self, image_size: int, precision: str) -> None:
        """Runs a faster copy of the model from now on; only for a teacher of whose layers none is wanted.

        `model` stays what it is, for whoever counts or saves it.
        """
        self._half = precision == "bf16-mixed"
        self._running = for_inference(self.model, torch.randn(4, 3, image_size, image_size), precision)
        self._tap = Tap(self._running)

    def compile(self, batch_size: int) -> None:
        """Compiles it for training batches of that size."""
        self._tap.compile(batch_size)

    def __call__(self, batch: Batch) -> Outputs:
        return self._answer(batch, training=len(batch.y))

    def evaluate(self, batch: Batch) -> Outputs:
        """The same, in whatever size a batch comes."""
        return self._answer(batch, training=None)

    @torch.no_grad()
    def _answer(self, batch: Batch, training: int | None) -> Outputs:
        x = batch.x if self.view is None else self.view.images(batch.x)
        if self._half:  # also where no one else casts, as in an evaluation
            with torch.autocast(x.device.type, torch.bfloat16):
                answer = self._tap(x, training)
        else:
            answer = self._tap(x, training)
        return answer if self.view is None else answer._replace(logits=self.view.logits(answer.logits))

    def start_epoch(self, epoch: int) -> None:
        """Nothing changes."""

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        self._running._apply(fn)
        if self.view is not None:
            self.view._apply(fn)
