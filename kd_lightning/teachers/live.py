"""A teacher that is run on every batch."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.models.hooks import FeatureExtractor, like_weights
from kd_lightning.teachers.adapter import TeacherAdapter
from kd_lightning.teachers.fold import fold
from kd_lightning.types import Batch, Outputs, Teacher


class LiveTeacher(Teacher):
    """One frozen model in eval mode, run without gradients.

    Not in inference mode: a loss may save the teacher's activations for the student's backward pass.

    Args:
        model: The network.
        layers: Names of the layers whose activations the loss reads.
        adapter: Translates inputs and classes of a teacher that was trained elsewhere.
    """

    members: Sequence[Teacher] = ()
    fixed = True

    def __init__(self, model: nn.Module, layers: Sequence[str] = (), adapter: TeacherAdapter | None = None):
        self.model = model.eval().requires_grad_(False)
        self.models = [self.model]
        self.adapter = adapter
        self._running, self._half = self.model, False
        self._extract = FeatureExtractor(self.model, layers)

    def optimize_for_inference(self, batch: Batch, precision: str) -> None:
        """Run a faster copy of the model from now on, checked on `batch`; not for a teacher whose layers are read.

        `model` stays as it is, for counting and saving.
        """
        self._half = precision == "bf16-mixed"
        self._running = fold(self.model, self._inputs(batch), precision)
        self._extract = FeatureExtractor(self._running)

    def compile(self, batch_size: int) -> None:
        self._extract.compile(batch_size)

    def __call__(self, batch: Batch) -> Outputs:
        return self._answer(batch, training=batch.size)

    def evaluate(self, batch: Batch) -> Outputs:
        return self._answer(batch, training=None)

    @torch.no_grad()
    def _answer(self, batch: Batch, training: int | None) -> Outputs:
        x = self._inputs(batch)
        # bf16 weights need autocast even where the caller does not cast, as in an evaluation.
        with torch.autocast(batch.y.device.type, torch.bfloat16) if self._half else nullcontext():
            answer = self._extract(x if self._half else like_weights(x, self._running), training)
        return answer if self.adapter is None else answer._replace(logits=self.adapter.logits(answer.logits))

    def _inputs(self, batch: Batch) -> Any:
        return batch.x if self.adapter is None else self.adapter.inputs(batch)

    def start_epoch(self, epoch: int) -> None:
        """Do nothing: its answers do not depend on the epoch."""

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        self._running._apply(fn)
        if self.adapter is not None:
            self.adapter._apply(fn)
