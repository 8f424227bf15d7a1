"""Networks of a user's own as teacher and student, without a configuration."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from kd_lightning.losses.distillation import Distillation
from kd_lightning.losses.layers import Layers
from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.losses.tasks import Tasks
from kd_lightning.models.probe import Probe
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.teachers.tasks import TaskTeachers
from kd_lightning.types import StudentCard, Teacher
from kd_lightning.utils.checks import UserError, did_you_mean, of_task


def plain_teacher(model: nn.Module, layers: Sequence[str] = ()) -> LiveTeacher:
    """Return the network as a frozen teacher."""
    return LiveTeacher(model, layers)


def plain_loss(loss: Any, student: nn.Module, teacher: Any, example: Any) -> tuple[Distillation, Teacher | None]:
    """Return the loss of a method, prepared for these networks, and the teacher.

    Args:
        loss: A method, or a `Distillation` whose method was prepared.
        student: The network to train.
        teacher: A network, a `Teacher` or None.
        example: Inputs of two samples, or None.

    Raises:
        UserError: If the method needs a teacher and there is none, or needs `example` and it is None.
    """
    if isinstance(loss, Method):
        loss = _prepared(loss, student, teacher, example)
    if not isinstance(loss, Distillation):
        raise UserError(f"loss must be a Method or a Distillation, got {type(loss).__name__}")
    return loss, _teacher(teacher, loss.teacher_layers)


def plain_tasks(
    loss: Any, student: nn.Module, teacher: Any, tasks: Sequence[str], example: Any
) -> tuple[Tasks, Teacher | None]:
    """Return the losses of several tasks, prepared for these networks, and their teachers.

    Args:
        loss: A `Tasks`, a method for each task, or one method for all of them.
        student: The network to train.
        teacher: A network, a `Teacher` or None for each task; a network that gives logits by task; or None.
        tasks: The names of the tasks.
        example: Inputs of two samples, or None.

    Raises:
        UserError: If a dictionary names other tasks, or one task has not what its method needs.
    """
    if isinstance(loss, Method):
        loss = {task: copy.deepcopy(loss) for task in tasks}
    losses = loss if isinstance(loss, Tasks) else Tasks(loss)
    _check_names("loss", losses.tasks, tasks)
    if lacks := [task for task in tasks if task not in losses.tasks]:
        raise UserError(f"loss has no method for the task {lacks[0]!r}; CE() trains a task on its labels alone")
    if isinstance(teacher, Mapping):
        _check_names("teacher", teacher, tasks)
    if not losses.is_prepared:
        done = {}
        for task in tasks:
            own = teacher.get(task) if isinstance(teacher, Mapping) else teacher
            with of_task(task):
                done[task], _ = plain_loss(losses.of(task).method, student, own, example)
        losses = Tasks(done, losses.weights)
    if isinstance(teacher, Mapping):
        there = {task: one for task, one in teacher.items() if one is not None}
        teacher = TaskTeachers({t: _teacher(one, losses.of(t).teacher_layers) for t, one in there.items()})
        return losses, teacher if there else None
    return losses, _teacher(teacher, losses.teacher_layers)


def _teacher(teacher: Any, layers: Sequence[str]) -> Any:
    return plain_teacher(teacher, layers) if isinstance(teacher, nn.Module) else teacher


def _check_names(what: str, named: Sequence[str] | Mapping[str, Any], tasks: Sequence[str]) -> None:
    for task in named:
        if task not in tasks:
            known = ", ".join(tasks)
            raise UserError(f"{what} names the task {task!r}, but the tasks are {known}{did_you_mean(task, tasks)}")


def _prepared(method: Method, student: nn.Module, teacher: Any, example: Any) -> Distillation:
    name = type(method).__name__
    loss = Distillation(method)
    loss.some_unlabeled = True  # samples of a user's own loader may have no label; if all have one, nothing changes
    if loss.needs_teacher and teacher is None:
        raise UserError(f"{name} needs a teacher, got None; plain training is CE()")
    if type(method).prepare is Method.prepare:
        return loss
    if example is None:
        raise UserError(f"{name} reads layers of the networks: give Distiller example=x, the inputs of two samples")

    def new_student(number: int) -> nn.Module:
        raise UserError(f"{name} trains a second student, which Distiller cannot make; use kd_lightning.train")

    reads_layers = any(isinstance(module, Layers) for module in method.modules())
    if loss.needs_teacher and reads_layers and not isinstance(teacher, nn.Module):
        raise UserError(f"{name} reads layers of the teacher: give the network itself, got {type(teacher).__name__}")
    probe = Probe(teacher, example) if isinstance(teacher, nn.Module) else None
    card = StudentCard(type(student).__name__, {}, (), {}, {})
    loss.prepare(Networks(Probe(student, example), probe, 0, new_student, card))
    return loss
