"""Verification: the test numbers of a run, computed again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich.table import Table
from torch.utils._pytree import tree_leaves

from kd_lightning.evaluation.inference import Inference
from kd_lightning.evaluation.opened import open_run
from kd_lightning.metrics import Scores
from kd_lightning.types import part
from kd_lightning.utils.calibration import calibrated_scores
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.names import task_name
from kd_lightning.utils.tables import Column, terminal

# Sums in another order (threads, batch size) may tip a tie; another kind of device rounds every logit differently.
SAMPLES, NATS = 1, 1e-3
ELSEWHERE = 10


class Check(NamedTuple):
    """One number of metrics.json, and what it is now."""

    name: str
    recorded: float
    now: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """True if it is the same within the tolerance."""
        return abs(self.now - self.recorded) <= self.tolerance


@dataclass(frozen=True)
class Verification:
    """Everything that was compared, and under which conditions."""

    path: Path
    checks: list[Check]
    notes: list[str]

    @property
    def ok(self) -> bool:
        """True if every number is the same."""
        return all(check.ok for check in self.checks)

    @property
    def verdict(self) -> str:
        """The result in one line."""
        failed = [f"{c.name} {c.now:.5f} instead of {c.recorded:.5f}" for c in self.checks if not c.ok]
        if failed:
            return f"{self.path} does not reproduce: {'; '.join(failed)}"
        return f"{self.path} reproduces: {len(self.checks)} of {len(self.checks)} test numbers within tolerance"

    def table(self) -> Table:
        """Return all numbers."""
        columns = [
            Column("name", "test number"),
            Column("recorded", "metrics.json", ".5f"),
            Column("now", "now", ".5f"),
            Column("tolerance", "tolerance", ".5f"),
            Column("verdict", ""),
        ]
        return terminal(columns, [c._asdict() | {"verdict": "same" if c.ok else "DIFFERS"} for c in self.checks])


def verify(path: Path, overrides: Sequence[str] = ()) -> Verification:
    """Test the students and the teacher of the run in `path` again, and compare with its metrics.json.

    The tolerance is one test sample for fractions, 0.001 for nll, entropy, kl and brier, both together for ece; ten
    times that if the run was made on another kind of device or in a precision that is not here.

    Raises:
        UserError: If the run cannot be tested again.
    """
    opened = open_run(path, overrides)
    metrics = opened.run.metrics
    tested = opened.config.trainer.limit_test_batches
    if tested != 1.0:
        raise UserError(f"{path} was tested on a part (trainer.limit_test_batches={tested}); nothing to compare with")
    inference = Inference.like(metrics, opened.config.trainer.accelerator)
    data = opened.data
    teacher, note = opened.teacher_if_found()
    answers = {name: inference.student(model) for name, model in opened.students.items()}
    if teacher is not None:
        answers["teacher"] = inference.teacher(teacher.teacher)
    logits, y = inference.logits(answers, inference.batches(data, "test"))

    same = (inference.accelerator, inference.precision) == (metrics["accelerator"], metrics["precision"])
    factor = 1 if same else ELSEWHERE
    known = min(int((labels >= 0).sum()) for labels in tree_leaves(y))
    fraction = factor * (SAMPLES + 0.01) / max(1, known)  # a hundredth for float32's rounding
    nats = factor * NATS
    tolerances = {"nll": nats, "entropy": nats, "kl": nats, "brier": nats, "ece": fraction + nats}
    checks = []
    recorded = {name: metrics["student"][name]["test"] for name in opened.students}
    if teacher is not None:
        recorded = {"teacher": metrics["teacher"]["test"]} | recorded
    for name, values in recorded.items():
        now = _scores(name, logits, y, data.tasks or {"": data.num_classes})
        checks += [
            Check(f"{name} {key}", value, now[key], tolerances.get(key.rpartition("/")[2], fraction))
            for key, value in values.items()
            if key in now
        ]
    if calibrated := metrics["student"][opened.select].get("calibrated"):
        now = {}
        for task in data.tasks or ("",):
            z, labels = part(logits[opened.select], task), part(y, task)
            own = calibrated_scores(z, labels, part(opened.card.extra["temperature"], task))
            now |= {task_name(task, key): value for key, value in own.items()}
        checks += [
            Check(f"{opened.select} calibrated {key}", value, now[key], tolerances[key.rpartition("/")[2]])
            for key, value in calibrated["test"].items()
        ]
    notes = [f"{data.sizes['test']:,} test samples, {inference.precision} on {inference.accelerator}."]
    if not same:
        notes.append(f"The run itself: {metrics['precision']} on {metrics['accelerator']}; tolerance × {ELSEWHERE}.")
    if note is not None:
        notes.append(note)
    return Verification(path, checks, notes)


def _scores(name: str, logits: Mapping[str, Any], y: Any, classes: Mapping[str, int]) -> dict[str, float]:
    """Return the scores of one model, as its run named them."""
    found: dict[str, float] = {}
    for task, count in classes.items():
        own = {who: part(z, task) for who, z in logits.items() if not task or task in z}
        if name in own:
            scores = Scores(count)
            scores.update(own[name], None if name == "teacher" else own.get("teacher"), part(y, task))
            found |= {task_name(task, key): value for key, value in scores.compute().items()}
    return found
