"""The method itself: a frozen teacher, a trainable student, one loss."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from kd_lightning.data.plain import as_batch
from kd_lightning.losses.balance import ratios
from kd_lightning.losses.distillation import Distillation
from kd_lightning.losses.method import Method
from kd_lightning.losses.tasks import Tasks
from kd_lightning.metrics import make_scores
from kd_lightning.models.heads import check_answer
from kd_lightning.models.hooks import FeatureExtractor
from kd_lightning.schedules import cosine
from kd_lightning.teachers.plain import plain_loss, plain_tasks
from kd_lightning.types import Batch, Teacher
from kd_lightning.utils.timing import Stopwatch

Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
Schedule = Callable[[float, int], float]


class _Hidden(tuple[Teacher | None]):
    """A teacher that nn.Module does not see, and that copies of the module share: averages need no second one."""

    def __deepcopy__(self, memo: Any) -> "_Hidden":
        return self


class Distiller(pl.LightningModule):
    """Train `student` on `loss(student outputs, teacher outputs, batch)`; both see the same view of the same batch.

    The teacher is kept outside the module tree, so it is never trained, saved in a checkpoint, put in train mode or
    wrapped by DDP; `_apply` takes it along to the student's device and dtype.

    >>> trainer.fit(Distiller(student, teacher, KD(temperature=4, alpha=0.9), num_classes=10), train_loader, val_loader)

    Args:
        student: The network to train, from inputs to logits `[B, C]`.
        teacher: A network, a `Teacher`, or None for ordinary training. A network is frozen.
        loss: A method, or a `Distillation` whose method was prepared.
        num_classes: C. With several tasks a dictionary of C by task: then `teacher` and `loss` may be dictionaries by
            task too, the student gives task → logits, and a batch has task → labels; see docs/tasks.md.
        optimizer: Makes the optimizer of the parameters it is given; default AdamW with a rate of 1e-3.
        schedule: `schedule(epoch, max_epochs)` is the factor of the learning rate at a fraction of an epoch; default
            a cosine to 0.
        example: Inputs of two samples; needed by methods that read layers of the networks.

    Batches are `Batch`, `(x, y)`, or dictionaries with the labels under `labels`, `label` or `y`.

    Raises:
        UserError: If the loss needs a teacher or `example` that is not given.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: Teacher | nn.Module | Mapping[str, Teacher | nn.Module | None] | None,
        loss: Method | Distillation | Tasks | Mapping[str, Method],
        *,
        num_classes: int | Mapping[str, int],
        optimizer: Optimizer | None = None,
        schedule: Schedule | None = None,
        example: Any = None,
    ):
        super().__init__()
        if isinstance(num_classes, Mapping):
            loss, teacher = plain_tasks(loss, student, teacher, tuple(num_classes), example)
        else:
            loss, teacher = plain_loss(loss, student, teacher, example)
        self.student, self.loss = loss.wrap_student(student), loss
        self.classes = num_classes if isinstance(num_classes, Mapping) else {"": num_classes}
        """Number of classes by task; `""` is the only task of ordinary data."""
        self.scores = make_scores(num_classes)
        self.watch = Stopwatch()
        self.log_terms = True
        """False if a callback logs what `training_step` returns."""
        self.kd_over_ce: dict[str, Tensor | None] = {}
        """Ratio of both gradients in the epoch's first batch by task, see `losses.balance`."""
        self._teacher = _Hidden((teacher,))
        self._extract = FeatureExtractor(self.student, loss.student_layers)
        self._optimizer, self._schedule = optimizer or torch.optim.AdamW, schedule or cosine
        self._known: dict[tuple[str, int], tuple[Tensor, Any]] = {}  # index and teacher's logits of a batch

    @property
    def teacher(self) -> Teacher | None:
        return self._teacher[0]

    def forward(self, x: Any) -> Any:
        return self._extract(x).logits

    def training_step(self, batch: Any, i: int) -> dict[str, Tensor]:
        """Return `loss`, its parts and training accuracy."""
        batch = as_batch(batch, tuple(self.classes))
        student = self._extract(batch.x, training=batch.size)
        check_answer("the student", student.logits, self.classes, batch.size)
        self.watch.lap("student")
        teacher = None
        if self.teacher is not None:
            teacher = self.teacher(batch)
            check_answer("the teacher", teacher.logits, self.classes, batch.size, all_tasks=False)
            self.watch.lap("teacher")
        self.loss.set_epoch(self.trainer.current_epoch + i / self.trainer.num_training_batches)
        terms = self.loss(student, teacher, batch)
        if i == 0:
            self.kd_over_ce = ratios(self.loss, terms, student)
        terms |= self.scores.of_step(student.logits, None if teacher is None else teacher.logits, batch.y)
        if self.log_terms:
            self.log_dict({f"train/{k}": v.detach() for k, v in terms.items()}, batch_size=batch.size)
        return terms

    def validation_step(self, batch: Any, i: int) -> dict[str, Any]:
        """Return the logits of `student` and `teacher`."""
        return self._evaluate("val", as_batch(batch, tuple(self.classes)), i)

    def test_step(self, batch: Any, i: int) -> None:
        self._evaluate("test", as_batch(batch, tuple(self.classes)), i)

    def _evaluate(self, stage: str, batch: Batch, i: int) -> dict[str, Any]:
        student, teacher = self._extract(batch.x).logits, self._teacher_logits(stage, batch, i)
        check_answer("the student", student, self.classes, batch.size)
        self.scores.update(student, teacher, batch.y)
        return {"student": student} if teacher is None else {"student": student, "teacher": teacher}

    def _teacher_logits(self, stage: str, batch: Batch, i: int) -> Any:
        """Return the teacher's answer, asked once for a batch that comes every epoch."""
        if self.teacher is None or not self.teacher.evaluates:
            return None
        index, logits = self._known.get((stage, i), (None, None))
        if index is None or not torch.equal(index, batch.index):
            logits = self.teacher.evaluate(batch).logits
            check_answer("the teacher", logits, self.classes, batch.size, all_tasks=False)
            if self.teacher.fixed and (batch.index >= 0).all():
                self._known[stage, i] = batch.index, logits
        return logits

    def on_fit_start(self) -> None:
        self._extract.place()  # SyncBatchNorm has replaced layers since

    def on_train_epoch_start(self) -> None:
        if self.teacher is not None:
            repeats: float = self.trainer.overfit_batches  # type: ignore[attr-defined]  # Lightning sets it late
            self.teacher.start_epoch(0 if repeats else self.current_epoch)  # the views of the first epoch again

    def on_train_epoch_end(self) -> None:
        if self.teacher is not None:
            self.teacher.end_epoch()

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def _log_scores(self, stage: str) -> None:
        # A validation by itself, of the teacher before training or of a checkpoint after it, is no point of the curve.
        # Neither is a test of ours, of which the run logs the deployed student's.
        # The values are equal on all ranks; sync_dist only keeps Lightning from warning that they might not be.
        values = {f"{stage}/{name}": value for name, value in self.scores.compute().items()}
        alone = self.trainer.state.fn == "validate" or (stage == "test" and not self.log_terms)
        self.log_dict(values, sync_dist=True, logger=False if alone else None)

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(self.parameters())
        steps = self.trainer.estimated_stepping_batches
        max_epochs = self.trainer.max_epochs or 1
        if max_epochs < 0:  # the trainer was given steps, or no end, which leaves the rate where it begins
            batches = self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
            max_epochs = max(1, round(steps / batches)) if math.isfinite(steps) else 1
        steps_per_epoch = steps / max_epochs
        factor = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: self._schedule(step / steps_per_epoch, max_epochs)
        )
        return [optimizer], [{"scheduler": factor, "interval": "step"}]

    def compile_networks(self, batch_size: int, mode: str = "default") -> None:
        """Compile student and teacher for training batches of one size; see `FeatureExtractor.compile`.

        `mode` is the student's. The teacher may be asked many times in one step, for which no graph is recorded.
        """
        self._extract.compile(batch_size, mode)
        if self.teacher is not None:
            self.teacher.compile(batch_size)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Distiller":
        if self.teacher is not None:
            self.teacher.apply_(fn)
        return super()._apply(fn, recurse)
