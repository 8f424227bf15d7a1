"""The teachers of several tasks."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from kd_lightning.types import Batch, Outputs, Teacher


class TaskTeachers(Teacher):
    """Asks the teacher of each task; a task may have none.

    Args:
        teachers: Teachers by task; each one answers as if its task were the only one.
    """

    members: Sequence[Teacher] = ()

    def __init__(self, teachers: Mapping[str, Teacher]):
        self.teachers = dict(teachers)
        self.models: list[nn.Module] = [model for teacher in teachers.values() for model in teacher.models]
        self.fixed = all(teacher.fixed for teacher in teachers.values())
        self.evaluates = any(teacher.evaluates for teacher in teachers.values())

    def of(self, task: str) -> Teacher | None:
        return self.teachers.get(task)

    def __call__(self, batch: Batch) -> Outputs:
        return _together({task: teacher(batch.of(task)) for task, teacher in self.teachers.items()})

    def evaluate(self, batch: Batch) -> Outputs:
        """Answer an evaluation batch, for the tasks whose teacher can."""
        able = {task: teacher for task, teacher in self.teachers.items() if teacher.evaluates}
        return _together({task: teacher.evaluate(batch.of(task)) for task, teacher in able.items()})

    def start_epoch(self, epoch: int) -> None:
        for teacher in self.teachers.values():
            teacher.start_epoch(epoch)

    def end_epoch(self) -> None:
        for teacher in self.teachers.values():
            teacher.end_epoch()

    @property
    def seconds_ahead(self) -> float:  # type: ignore[override]
        return sum(teacher.seconds_ahead for teacher in self.teachers.values())

    def compile(self, batch_size: int) -> None:
        for teacher in self.teachers.values():
            teacher.compile(batch_size)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        for teacher in self.teachers.values():
            teacher.apply_(fn)


def _together(answers: Mapping[str, Outputs]) -> Outputs:
    return Outputs({task: answer.logits for task, answer in answers.items()}, members=tuple(answers.values()))
