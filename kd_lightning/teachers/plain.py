"""Networks of a user's own as teacher and student, without a configuration."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from kd_lightning.losses.distillation import Distillation
from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.models.probe import Probe
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.types import StudentCard, Teacher
from kd_lightning.utils.checks import UserError


def plain_teacher(model: nn.Module, layers: Sequence[str] = ()) -> LiveTeacher:
    """Return the network as a frozen teacher."""
    return LiveTeacher(model, layers)


def plain_loss(method: Method, student: nn.Module, teacher: Teacher | nn.Module | None, example: Any) -> Distillation:
    """Return the loss of a method, prepared for these networks.

    Raises:
        UserError: If the method needs a teacher and there is none, or needs `example` and it is None.
    """
    name = type(method).__name__
    loss = Distillation(method)
    if loss.needs_teacher and teacher is None:
        raise UserError(f"{name} needs a teacher, got None; plain training is CE()")
    if type(method).prepare is Method.prepare:
        return loss
    if example is None:
        raise UserError(f"{name} reads layers of the networks: give Distiller example=x, the inputs of two samples")

    def new_student(number: int) -> nn.Module:
        raise UserError(f"{name} trains a second student, which Distiller cannot make; use kd_lightning.train")

    probe = Probe(teacher, example) if isinstance(teacher, nn.Module) else None
    card = StudentCard(type(student).__name__, {}, (), {}, {})
    loss.prepare(Networks(Probe(student, example), probe, 0, new_student, card))
    return loss
