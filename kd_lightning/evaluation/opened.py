"""A finished run, opened for a command that evaluates, predicts, exports or compresses it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import nn

from kd_lightning import runs
from kd_lightning.config import build
from kd_lightning.data.module import DataModule
from kd_lightning.evaluation.found import FoundTeacher, find_teacher
from kd_lightning.evaluation.overrides import overridden
from kd_lightning.runs.students import load_student, load_students
from kd_lightning.types import StudentCard
from kd_lightning.utils.checks import UserError


@dataclass(frozen=True)
class OpenedRun:
    """A finished run: its students, its teacher and its data, the latter three when they are asked for."""

    run: runs.Run
    config: DictConfig
    """The run's configuration, with what was typed."""
    student: nn.Module
    """The deployed student, in eval mode."""
    card: StudentCard

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.run.path

    @property
    def select(self) -> str:
        """Name of the deployed student, `last` or `best`."""
        return str(self.run.metrics["select"])

    @cached_property
    def students(self) -> dict[str, nn.Module]:
        """`last` and, where validation chose one, `best`; the deployed one first. Raises UserError."""
        return load_students(self.path)[0] | {self.select: self.student}

    @cached_property
    def data(self) -> DataModule:
        """The data, prepared. Raises UserError if it is not there, or does not fit the student."""
        data = self._unprepared
        data.prepare_data()
        data.setup()
        facts = data.model_kwargs() | {"classes": list(data.classes)}
        known = dict(self.card.inputs) | {"classes": list(self.card.classes)}
        if other := [name for name in known | facts if facts.get(name) != known.get(name)]:
            told = [", ".join(f"{name} {_told(each.get(name))}" for name in other) for each in (facts, known)]
            raise UserError(f"data: {data.name} has {told[0]}, but {self.path} was trained on {told[1]}")
        return data

    @property
    def has_teacher(self) -> bool:
        """True if the run had a teacher."""
        return "teacher" in self.run.metrics

    def find_teacher(self) -> FoundTeacher:
        """Return the teacher of the run; the data need not be there. Raises UserError if its weights are gone."""
        if self._same_data:
            return find_teacher(self.run, self.config, self._unprepared)
        return find_teacher(self.run, self.config, build(self.run.config.data, "data"))  # its fingerprint names it

    def teacher_if_found(self) -> tuple[FoundTeacher | None, str | None]:
        """Return the teacher, or why there is none although the run had one."""
        if "stored_teacher" in self.run.metrics:
            return None, "the teacher's stored answers are of training samples only; the student is evaluated alone"
        if not self.has_teacher:
            return None, None
        try:
            return self.find_teacher(), None
        except UserError as e:
            return None, f"{e}; the student is evaluated alone"

    @property
    def _same_data(self) -> bool:
        return bool(self.config.data._target_ == self.run.config.data._target_)

    @cached_property
    def _unprepared(self) -> DataModule:
        config = self.config.data.copy()
        if "normalize" in config:  # inputs as the student knows them, whatever data=NAME says
            config.normalize = self.card.preprocessing.get("normalize", config.normalize)
        data: DataModule = build(config, "data")
        return data


def open_run(path: Path, overrides: Sequence[str] = ()) -> OpenedRun:
    """Open the finished run in `path`.

    Args:
        path: The run directory.
        overrides: `key=value` as typed: where things lie now, or other data of the same classes.

    Raises:
        UserError: If the run is unfinished or damaged, or an override is not allowed.
    """
    run = runs.read(path)
    student, card = load_student(path)
    return OpenedRun(run, overridden(run.config, list(overrides)), student, card)


def _told(fact: Any) -> str:
    """Return a fact of the data; of a long list of classes the first ones."""
    if not isinstance(fact, list):
        return str(fact)
    return ", ".join(map(str, fact[:4])) + " …" * (len(fact) > 4)
