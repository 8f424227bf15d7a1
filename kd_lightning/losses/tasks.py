"""The losses of several tasks, added up."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.losses.distillation import Distillation
from kd_lightning.losses.method import Method
from kd_lightning.types import Batch, Outputs, StudentCard
from kd_lightning.utils.checks import UserError, did_you_mean, number


class Tasks(nn.Module):
    """`Σ weight · loss` over the tasks of a student with several heads; each task has a method of its own.

    A loss is given the part of student, teachers and batch that its task is about, so it is the loss of an ordinary
    training with one task.

    >>> Tasks({"object": KD(temperature=4, alpha=0.9), "kind": CE()}, weights={"kind": 0.5})

    Args:
        methods: A method for each task, or a `Distillation` whose method was prepared.
        weights: Weights of the tasks, >= 0; 1 where none is given.

    Raises:
        UserError: If there is no method, one cannot be used here, or a weight is wrong.
    """

    def __init__(self, methods: Mapping[str, Method | Distillation], weights: Mapping[str, Any] | None = None):
        super().__init__()
        if not isinstance(methods, Mapping) or not methods:
            raise UserError("loss.methods must have a method for each task, as object: {_target_: …}")
        for task, method in methods.items():
            if not isinstance(method, Method | Distillation):
                raise UserError(f"loss.methods.{task} must be a method with a _target_, got {method!r}")
        self.tasks = tuple(methods)
        self.losses = nn.ModuleList(
            loss if isinstance(loss, Distillation) else Distillation(loss) for loss in methods.values()
        )
        self.weights = dict.fromkeys(self.tasks, 1.0)
        for task, weight in (weights or {}).items():
            if task not in self.tasks:
                raise UserError(
                    f"loss.weights names the task {task!r}, but the tasks are {', '.join(self.tasks)}"
                    f"{did_you_mean(task, self.tasks)}"
                )
            self.weights[task] = number(f"loss.weights.{task}", weight, ge=0)
        if not any(self.weights.values()):
            raise UserError("loss.weights are all 0, so there is nothing to learn; set one above 0")
        for task in self.tasks:
            method = self.of(task).method
            if self.of(task).is_on and type(method).wrap_student is not Method.wrap_student:
                raise UserError(
                    f"loss.methods.{task}: {type(method).__name__} replaces the student's classifier, which several "
                    "tasks share; use another method, such as KD"
                )

    def of(self, task: str) -> Distillation:
        """Return the loss of one task."""
        loss = self.losses[self.tasks.index(task)]
        assert isinstance(loss, Distillation)
        return loss

    @property
    def methods(self) -> dict[str, Method]:
        """The method of each task."""
        return {task: self.of(task).method for task in self.tasks}

    @property
    def name(self) -> str:
        """Names of the methods by task, for people."""
        return ", ".join(f"{task} {self.of(task).name}" for task in self.tasks)

    @property
    def is_prepared(self) -> bool:
        """True once all methods found their layers and made their parameters."""
        return all(self.of(task).is_prepared for task in self.tasks)

    deploys_best = False
    peers: Sequence[nn.Module] = ()
    """None: methods that train further students are refused."""

    @property
    def needs_teacher(self) -> bool:
        """True if at least one task needs a teacher."""
        return any(self.of(task).needs_teacher for task in self.tasks)

    @property
    def least_batch(self) -> int:
        """Smallest number of samples in a batch that all methods can compare."""
        return max(self.of(task).least_batch for task in self.tasks)

    @property
    def student_layers(self) -> tuple[str, ...]:
        """Names of the student's layers that the methods read; known after they were prepared."""
        return tuple(dict.fromkeys(name for task in self.tasks for name in self.of(task).student_layers))

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """Names of the layers that the methods read, each of the teacher of its task."""
        return tuple(dict.fromkeys(name for task in self.tasks for name in self.of(task).teacher_layers))

    def wrap_student(self, student: nn.Module) -> nn.Module:
        """Return the student itself: methods that change it are refused."""
        return student

    def wrap_card(self, card: StudentCard) -> StudentCard:
        """Return the student's card as it is."""
        return card

    def set_epoch(self, epoch: float) -> None:
        """Move all schedules to `epoch`, the number of epochs trained so far, with its fraction."""
        for task in self.tasks:
            self.of(task).set_epoch(epoch)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return scalars: `loss`, and for each task its own `task/loss` and the parts of it, without weights."""
        terms: dict[str, Tensor] = {}
        for task in self.tasks:
            taught = teacher.of(task) if teacher is not None and task in teacher.logits else None
            own = self.of(task)(student.of(task), taught, batch.of(task))
            terms |= {f"{task}/{name}": value for name, value in own.items()}
        losses = [self.weights[task] * terms[f"{task}/loss"] for task in self.tasks]
        return {"loss": reduce(torch.add, losses)} | terms
