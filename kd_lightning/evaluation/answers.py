"""The most probable classes of raw samples, as the models of a run see them, and how they are told."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from rich.table import Table

from kd_lightning.data.find_files import printable
from kd_lightning.evaluation.inference import Answer, Inference
from kd_lightning.evaluation.opened import OpenedRun
from kd_lightning.types import batch_of, each_of, part, whole
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.names import task_name
from kd_lightning.utils.tables import Column, terminal

LONGEST = 44
"""Characters of a path in a table."""
Top = dict[str, list[tuple[str, float]]]
"""Model → its classes with the largest probabilities, largest first; of several tasks `kind/student`."""


class Told(Protocol):
    """A prediction for one sample of any kind."""

    @property
    def told(self) -> dict[str, Any]:
        """Plain values for JSON: the kind of sample → its name first."""

    @property
    def label(self) -> str:
        """Its name in a table."""

    @property
    def top(self) -> Top:
        """The answers."""


class Answers:
    """The deployed student of a run, and its teacher on demand.

    Args:
        opened: The run; its data need not be there.
        teacher: Ask the teacher too.
        raw: Give the student's probabilities as it was trained, not calibrated by the temperature of its card.

    Raises:
        UserError: If the run has no teacher.
    """

    def __init__(self, opened: OpenedRun, teacher: bool = False, raw: bool = False):
        if teacher and not opened.has_teacher:
            raise UserError(f"--teacher: the run in {opened.path} had no teacher (loss {opened.config.loss._target_})")
        self.tasks = opened.card.tasks
        own = {} if raw else opened.card.extra.get("temperature", {})
        self.temperatures = {task: float(t) for task, t in each_of(own, self.tasks, 1.0).items()}
        """Temperature of the student's probabilities by task; 1 leaves them as they are."""
        inference = Inference("cpu", "32-true")  # a few samples do not pay for a transfer
        self._student = inference.student(opened.student)
        self._teachers: dict[str, Answer] = {}
        found = opened.find_teacher().teacher if teacher else None
        for task in self.tasks if found is not None else ():
            taught = found.of(task) if found is not None else None
            if taught is not None:
                self._teachers[task] = inference.teacher(taught)

    @torch.no_grad()
    def __call__(self, x: Any, raw: Sequence[Any], top: int) -> list[Top]:
        """Return the `top` classes of each of the samples `raw`, whose inputs are `x`."""
        count = len(raw)
        batch = batch_of(x, count)._replace(raw=raw)
        found: list[Top] = [{} for _ in range(count)]
        said = self._student(batch)
        for task, classes in self.tasks.items():
            answers = {"student": part(said, task).float() / self.temperatures[task]}
            if task in self._teachers:
                answers["teacher"] = self._teachers[task](batch).float()
            for name, z in answers.items():
                p, c = z.softmax(1).topk(min(top, len(classes)))
                for one, *row in zip(found, c.tolist(), p.tolist(), strict=True):
                    one[task_name(task, name)] = [(classes[k], v) for k, v in zip(*row, strict=True)]
        return found


def as_json(prediction: Told, temperatures: Mapping[str, float]) -> str:
    """Return `{"image": …, "temperature": …, "student": [{"class": …, "probability": …}, …]}` in one line."""
    rounded = {task: round(temperature, 6) for task, temperature in temperatures.items()}
    values = prediction.told | {"temperature": whole(rounded)}
    for name, best in prediction.top.items():
        values[name] = [{"class": c, "probability": round(p, 6)} for c, p in best]
    return json.dumps(values, ensure_ascii=False)


def path_label(path: Path) -> str:
    """Return the name of a file for a table: its end, which tells files apart."""
    name = printable(path)
    return name if len(name) <= LONGEST else f"…{name[-LONGEST:]}"


def predictions_table(predictions: Sequence[Told]) -> Table:
    """Return a table with a row for each sample and a column for each model."""
    kind = next(iter(predictions[0].told))
    rows = []
    for prediction in predictions:
        cells = {name: "\n".join(f"{p:6.1%}  {c}" for c, p in best) for name, best in prediction.top.items()}
        rows += [{kind: prediction.label} | cells, {}]
    columns = [Column(kind, kind), *(Column(name, name) for name in predictions[0].top)]
    return terminal(columns, rows[:-1])
