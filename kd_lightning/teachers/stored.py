"""Answers that were bought or computed once, as a teacher: no network is run."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.types import Batch, Outputs, Teacher
from kd_lightning.utils.checks import UserError

NAME = "stored"
"""`model.teacher` of such a teacher."""
MOST_BYTES = 256 * 2**20  # of answers on the device


class StoredAnswers(nn.Module):
    """The answers to all training samples, as tensors. A module, so that it stands where a teacher's network would.

    Args:
        values: Logits `[N, C]`, or `[N, k]` with `indices`.
        classes: Number of classes in the file, C.
        indices: Classes of the k logits, `[N, k]`.
        tail: ln of the sum of exp of the other C - k logits, `[N]`.
        order: `order[c]` is the file's class for class c of the data; None for the same order.
    """

    values: Tensor

    def __init__(
        self,
        values: Tensor,
        classes: int,
        indices: Tensor | None = None,
        tail: Tensor | None = None,
        order: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.indices: Tensor | None
        self.tail: Tensor | None
        self.order: Tensor | None
        self.register_buffer("values", values)
        self.register_buffer("indices", indices)
        self.register_buffer("tail", tail)
        self.register_buffer("order", None if order is None else torch.tensor(list(order)))

    def of(self, index: Tensor) -> Tensor:
        """Return the logits `[B, C]` of the samples `index` `[B]`, which is where the answers are."""
        logits = self.values[index].float()
        if self.indices is not None:
            rest = self.classes - logits.shape[1]
            every = logits.new_zeros(len(logits), self.classes)
            if self.tail is not None and rest:
                every += (self.tail[index].float() - math.log(rest))[:, None]
            logits = every.scatter_(1, self.indices[index], logits)
        return logits if self.order is None else logits.index_select(1, self.order)

    def forward(self, x: Any) -> Tensor:
        raise UserError(
            "model.teacher=stored holds answers to the training samples and no network, so it has no layers and "
            "answers nothing else; use a loss of logits such as loss=kd"
        )


class StoredTeacher(Teacher):
    """Answers training batches by the index of their samples, whatever their view; has none for other samples."""

    members: Sequence[Teacher] = ()
    fixed = True
    evaluates = False

    def __init__(self, answers: StoredAnswers) -> None:
        self.answers = answers
        self.models: list[nn.Module] = []
        self._moves = sum(tensor.nbytes for tensor in answers.buffers()) <= MOST_BYTES

    def __call__(self, batch: Batch) -> Outputs:
        if batch.mixed is not None:
            raise UserError(
                "model.teacher=stored has no answer to mixed pictures; leave out data.augment.mixup and cutmix"
            )
        return Outputs(self.answers.of(batch.index.to(self.answers.values.device)).to(batch.y.device))

    def evaluate(self, batch: Batch) -> Outputs:
        """Raise UserError: there are answers to training samples only."""
        raise UserError("model.teacher=stored has answers to training samples only; it has no scores")

    def start_epoch(self, epoch: int) -> None:
        """Do nothing: its answers do not depend on the epoch."""

    def compile(self, batch_size: int) -> None:
        """Do nothing: there is no network."""

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        if self._moves:
            self.answers._apply(fn)
