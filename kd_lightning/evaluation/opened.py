"""A finished run, opened for a command that evaluates, predicts, exports or compresses it."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from torch import nn

from kd_lightning import runs
from kd_lightning.config import build
from kd_lightning.data.module import DataModule
from kd_lightning.evaluation.found import FoundTeacher, find_teacher
from kd_lightning.evaluation.overrides import overridden
from kd_lightning.runs.students import load_students
from kd_lightning.types import StudentCard
from kd_lightning.utils.checks import UserError


@dataclass(frozen=True)
class OpenedRun:
    """A finished run with its data and its students."""

    run: runs.Run
    config: DictConfig
    """The run's configuration, with what was typed."""
    data: DataModule
    students: dict[str, nn.Module]
    """`last` and, where validation chose one, `best`; the deployed one first."""
    card: StudentCard

    @property
    def path(self) -> Path:
        return self.run.path

    @property
    def student(self) -> nn.Module:
        """The deployed student, in eval mode."""
        return self.students[self.run.metrics["select"]]

    @property
    def has_teacher(self) -> bool:
        return "teacher" in self.run.metrics

    def find_teacher(self) -> FoundTeacher:
        """Return the teacher of the run. Raises UserError if its weights are gone."""
        same_data = self.config.data._target_ == self.run.config.data._target_
        trained_on = self.data if same_data else build(self.run.config.data, "data")  # its fingerprint names a teacher
        return find_teacher(self.run, self.config, trained_on)


def open_run(path: Path, overrides: list[str]) -> OpenedRun:
    """Open the finished run in `path`, its data prepared.

    Args:
        path: The run directory.
        overrides: `key=value` as typed: where things lie now, or other data of the same classes.

    Raises:
        UserError: If the run is unfinished or damaged, or the data does not fit the student.
    """
    run = runs.read(path)
    students, card = load_students(path)
    config = overridden(run.config, overrides)
    return OpenedRun(run, config, _open_data(run, config, card), students, card)


def _open_data(run: runs.Run, config: DictConfig, card: StudentCard) -> DataModule:
    """Return the data, prepared. Raises UserError if it does not fit the student."""
    if config.data._target_ != run.config.data._target_ and "normalize" in config.data:
        config.data.normalize = card.preprocessing.get("normalize", config.data.normalize)
    data: DataModule = build(config.data, "data")
    data.prepare_data()
    data.setup()
    if list(data.classes) != list(card.classes) or data.model_kwargs() != dict(card.inputs):
        told = [", ".join(f"{k} {v}" for k, v in facts.items()) for facts in (data.model_kwargs(), card.inputs)]
        raise UserError(
            f"data: {data.name} has {told[0]}, but {run.path} was trained on {told[1]} "
            f"({', '.join(card.classes[:4])} …)"
        )
    return data
