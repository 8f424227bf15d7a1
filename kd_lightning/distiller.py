"""The method itself: a frozen teacher, a trainable student, one loss."""

from collections.abc import Callable, Iterable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from kd_lightning.losses.balance import kd_over_ce
from kd_lightning.losses.functional import fuse_probabilities
from kd_lightning.metrics import Scores
from kd_lightning.models.hooks import Tap
from kd_lightning.teachers import LiveTeacher, Teacher
from kd_lightning.types import Batch
from kd_lightning.utils.timing import Stopwatch


class Distiller(pl.LightningModule):
    """Trains `student` on `loss(student outputs, teacher outputs, batch)`; both see the same view of the same batch.

    The teacher is kept outside the module tree, so it is never trained, saved in a checkpoint, put in train mode or
    wrapped by DDP; `_apply` takes it along to the student's device and dtype. Without a teacher (`None`) this is
    ordinary training.

    `optimizer(params)` makes the optimizer; `schedule(epoch, max_epochs)` is the factor of its learning rate at a
    fraction of an epoch.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | None,
        loss: Any,
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
        schedule: Callable[[float, int], float],
        num_classes: int,
    ):
        super().__init__()
        if hasattr(loss, "deployed"):
            student = loss.deployed(student)
        self.student, self.loss = student, loss
        self.scores = Scores(num_classes)
        self._teacher = (teacher,)  # a tuple hides it from nn.Module
        self._tap = Tap(student, loss.student_layers)
        self.watch = Stopwatch()
        self._optimizer, self._schedule = optimizer, schedule
        self.kd_over_ce: Tensor | None = None
        """Of the epoch's first batch: see `losses.balance`."""
        self._known: dict[tuple[str, int], Tensor] = {}  # the teacher's logits of evaluation batches

    @property
    def teacher(self) -> Teacher | None:
        return self._teacher[0]

    def compile_networks(self, batch_size: int) -> None:
        """Compiles student and live teachers, each by itself, for training batches of one size; see `Tap.compile`."""
        self._tap.compile(batch_size)
        for one in getattr(self.teacher, "members", [self.teacher]):
            if isinstance(one, LiveTeacher):
                one.compile(batch_size)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Distiller":
        if self.teacher is not None:
            self.teacher.apply_(fn)
        return super()._apply(fn, recurse)

    def forward(self, x: Any) -> Tensor:
        return self.student(x)

    def on_train_epoch_start(self) -> None:
        if self.teacher is not None:
            self.teacher.start_epoch(self.current_epoch)

    def training_step(self, batch: Batch, i: int) -> dict[str, Tensor]:
        """Returns `loss`, its parts, and what is shown beside them; the loop logs their means."""
        student = self._tap(batch.x, training=len(batch.y))
        self.watch.lap("student")
        teacher = None
        if self.teacher is not None:
            teacher = self.teacher(batch)
            self.watch.lap("teacher")
        if hasattr(self.loss, "set_epoch"):
            self.loss.set_epoch(self.trainer.current_epoch + i / self.trainer.num_training_batches)
        terms = self.loss(student, teacher, batch)
        if i == 0:
            self.kd_over_ce = kd_over_ce(self.loss, terms, student.logits)
        predicted = student.logits.detach().argmax(1)
        terms["accuracy"] = (predicted == batch.y).float().mean()
        if teacher is not None:
            told = teacher.logits if teacher.logits.dim() == 2 else fuse_probabilities(teacher.logits, 1.0)
            terms["agreement"] = (predicted == told.argmax(1)).float().mean()
        return terms

    def validation_step(self, batch: Batch, i: int) -> dict[str, Tensor]:
        """Returns the logits of `student` and `teacher`."""
        return self._evaluate("val", batch, i)

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def test_step(self, batch: Batch, i: int) -> None:
        self._evaluate("test", batch, i)

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _evaluate(self, stage: str, batch: Batch, i: int) -> dict[str, Tensor]:
        if self.teacher is not None and (stage, i) not in self._known:
            self._known[stage, i] = self.teacher.evaluate(batch).logits  # evaluation batches are the same every epoch
        student, teacher = self.student(batch.x), self._known.get((stage, i))
        self.scores.update(student, teacher, batch.y)
        return {"student": student} if teacher is None else {"student": student, "teacher": teacher}

    def _log_scores(self, stage: str) -> None:
        # A validation by itself, of the teacher before or of a checkpoint after training, is no point of the curve.
        # The values are equal on all ranks; sync_dist only keeps Lightning from warning that they might not be.
        values = {f"{stage}/{name}": value for name, value in self.scores.compute().items()}
        alone = self.trainer.state.fn == "validate"
        self.log_dict(values, sync_dist=True, logger=False if alone else None)

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(self.parameters())
        max_epochs = self.trainer.max_epochs or 1
        steps_per_epoch = self.trainer.estimated_stepping_batches / max_epochs
        factor = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self._schedule(step / steps_per_epoch, max_epochs)
        )
        return [optimizer], [{"scheduler": factor, "interval": "step"}]
