"""The loss that is trained on: the labels' cross-entropy and a method."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from kd_lightning.losses.ce import task_loss
from kd_lightning.losses.combination import Combination
from kd_lightning.losses.functional._common import full
from kd_lightning.losses.fusion import Fusion
from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.types import Batch, Outputs, StudentCard
from kd_lightning.utils.checks import UserError


class Distillation(nn.Module):
    """`ce_weight·CE(student, labels) + alpha·method`, with the weights of the method.

    With alpha = 0 this is ordinary training and no teacher is run. `Tasks` adds up one for each of several tasks.

    Args:
        method: What is distilled.
        fusion: How the answers of several teachers become one.

    Raises:
        UserError: If both weights are 0.
    """

    def __init__(self, method: Method, fusion: Fusion | None = None):
        super().__init__()
        self.method = method
        self.fusion = fusion or Fusion()
        if method.alpha.largest == method.ce_weight.largest == 0:
            raise UserError("loss.alpha and loss.ce_weight are both 0, so there is nothing to learn; set one above 0")
        self.is_on = method.alpha.largest > 0
        self.needs_teacher = self.is_on and method.needs_teacher
        self.least_batch = method.least_batch if self.is_on else 1
        self.some_unlabeled = False
        """Set to True if some training samples have no label, which the cross-entropy then skips."""
        self.is_prepared = False

    tasks = ("",)
    """The only task of ordinary data."""

    def of(self, task: str) -> "Distillation":
        """Return the loss of one task."""
        return self

    @property
    def name(self) -> str:
        """Name of the method, for people."""
        return type(self.method).__name__

    @property
    def student_layers(self) -> tuple[str, ...]:
        """Names of the student's layers that the method reads; known after `prepare`."""
        return self.method.student_layers if self.is_on else ()

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """Names of the teacher's layers that the method reads; known after `prepare`."""
        return self.method.teacher_layers if self.is_on else ()

    @property
    def deploys_best(self) -> bool:
        """True if of student and peers the one that is best on validation is deployed."""
        return self.method.deploys_best

    @property
    def peers(self) -> Sequence[nn.Module]:
        """Networks of the student's kind that are trained beside it; known after `prepare`."""
        return self.method.peers if self.is_on else ()

    def prepare(self, networks: Networks) -> None:
        """Let the method find its layers and make its parameters. Raises UserError."""
        self.is_prepared = True
        if self.is_on:
            self.method.prepare(networks)

    def set_epoch(self, epoch: float) -> None:
        """Move all schedules to `epoch`, the number of epochs trained so far, with its fraction."""
        self.method.set_epoch(epoch)

    def wrap_student(self, student: nn.Module) -> nn.Module:
        """Return the network to train and deploy."""
        return self.method.wrap_student(student) if self.is_on else student

    def wrap_card(self, card: StudentCard) -> StudentCard:
        """Return the card of the network that `wrap_student` returned."""
        return self.method.wrap_card(card) if self.is_on else card

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return scalars: `loss` and its parts, `ce` and the method's, without their weights.

        Student and teacher logits are `[B, C]`, labels `[B]`.
        """
        # Cast once, not in each part: then the gradients of all parts are added in full precision.
        student = student._replace(logits=full(student.logits))
        ce = task_loss(student.logits, batch, self.some_unlabeled, self.method.label_smoothing)
        terms = {"ce": ce}
        loss = self.method.ce_weight() * ce
        if self.is_on:
            parts = self._ask(self.method, student, teacher, batch)
            loss = loss + self.method.alpha() * sum(parts.values())
            own = self.fusion.own_loss(teacher, batch.y) if teacher is not None else None
            if own is not None:
                loss, terms["fusion"] = loss + own, own
            terms |= parts
        return {"loss": loss} | terms

    def _ask(self, method: Method, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return a method's parts. Several teachers are fused at its temperature, or its losses are."""
        if isinstance(method, Combination):
            return method.combine(lambda part: self._ask(part, student, teacher, batch))
        if teacher is None or not teacher.members:
            return named(method, method(student, teacher, batch))
        if self.fusion.fusion == "losses":
            weights = self.fusion.weights(teacher, batch.y)[:, 0]
            each = [named(method, method(student, member, batch)) for member in teacher.members]
            return {name: sum(w * parts[name] for w, parts in zip(weights, each, strict=True)) for name in each[0]}
        fused = Outputs(self.fusion(teacher, batch.y, method.temperature()))
        return named(method, method(student, fused, batch))


def named(method: Method, value: Any) -> dict[str, Tensor]:
    """Return parts by name; a scalar is named after the class of its method."""
    return dict(value) if isinstance(value, Mapping) else {type(method).__name__.lower(): value}
