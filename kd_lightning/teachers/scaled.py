"""A teacher whose answers are made softer or sharper by one temperature."""

from collections.abc import Callable

from torch import Tensor

from kd_lightning.types import Batch, Outputs, Teacher


class ScaledTeacher(Teacher):
    """Divides the logits of `teacher` by `temperature`; the classes that it predicts stay the same.

    It stands in front of a cache, so that the cached answers do not depend on the temperature.
    """

    def __init__(self, teacher: Teacher, temperature: float = 1.0):
        self.teacher, self.temperature = teacher, temperature
        self.models, self.members, self.fixed = teacher.models, (), teacher.fixed
        self.evaluates = teacher.evaluates

    def __call__(self, batch: Batch) -> Outputs:
        return self._scaled(self.teacher(batch))

    def evaluate(self, batch: Batch) -> Outputs:
        return self._scaled(self.teacher.evaluate(batch))

    def _scaled(self, answer: Outputs) -> Outputs:
        return answer._replace(logits=answer.logits / self.temperature)

    def start_epoch(self, epoch: int) -> None:
        self.teacher.start_epoch(epoch)

    def end_epoch(self) -> None:
        self.teacher.end_epoch()

    @property
    def seconds_ahead(self) -> float:  # type: ignore[override]
        return self.teacher.seconds_ahead

    def compile(self, batch_size: int) -> None:
        self.teacher.compile(batch_size)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        self.teacher.apply_(fn)
