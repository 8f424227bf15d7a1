"""Whether a run's test numbers come out again."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from kd_lightning.cli import fail
from kd_lightning.evaluation.inference import Inference
from kd_lightning.evaluation.opened import open_subject
from kd_lightning.metrics import Scores
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say

# Sums in another order (threads, batch size) may tip a tie; another kind of device rounds every logit differently.
IMAGES, NATS = 1, 1e-3
ELSEWHERE = 10


class Check(NamedTuple):
    """One number of metrics.json and what it is now."""

    name: str
    recorded: float
    now: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return abs(self.now - self.recorded) <= self.tolerance


@dataclass(frozen=True)
class Verification:
    """What was compared, and under which conditions."""

    path: Path
    checks: list[Check]
    notes: list[str]

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    @property
    def verdict(self) -> str:
        """One line."""
        failed = [f"{c.name} {c.now:.5f} instead of {c.recorded:.5f}" for c in self.checks if not c.ok]
        if failed:
            return f"{self.path} does not reproduce: {'; '.join(failed)}"
        return f"{self.path} reproduces: {len(self.checks)} of {len(self.checks)} test numbers within tolerance"

    def table(self) -> Table:
        table = Table(caption="\n".join(self.notes), caption_justify="left")
        table.add_column("test number")
        for column in ("metrics.json", "now", "tolerance", ""):
            table.add_column(column, justify="right")
        for c in self.checks:
            table.add_row(
                c.name, f"{c.recorded:.5f}", f"{c.now:.5f}", f"{c.tolerance:.5f}", "same" if c.ok else "DIFFERS"
            )
        return table


def verify(path: Path, overrides: list[str] | None = None) -> Verification:
    """Tests the saved students, and the teacher, of the run in `path` again, and compares with its metrics.json.

    Tolerance: one test image for fractions, 0.001 nats for nll, entropy and kl, both together for ece; ten times that
    if the run was made on another kind of device or in a precision that is not here. Raises UserError where it cannot.
    """
    subject = open_subject(path, overrides or [])
    metrics = subject.run.metrics
    if subject.config.trainer.limit_test_batches != 1.0:
        part = subject.config.trainer.limit_test_batches
        raise UserError(f"{path} was tested on a part (trainer.limit_test_batches={part}); nothing to compare with")
    inference = Inference.like(metrics, subject.config.trainer.accelerator)
    answers = {name: inference.student(model) for name, model in subject.students.items()}
    if subject.teacher is not None:
        answers["teacher"] = inference.teacher(subject.teacher)
    logits, y = inference.logits(answers, inference.batches(subject.data, "test"))

    same = (inference.accelerator, inference.precision) == (metrics["accelerator"], metrics["precision"])
    factor = 1 if same else ELSEWHERE
    fraction = factor * (IMAGES + 0.01) / len(y)  # a hundredth for float32's rounding of the fraction
    nats = factor * NATS
    tolerances = {"nll": nats, "entropy": nats, "kl": nats, "ece": fraction + nats}
    checks = []
    recorded = {name: metrics["student"][name]["test"] for name in subject.students}
    if subject.teacher is not None:
        recorded = {"teacher": metrics["teacher"]["test"]} | recorded
    for name, values in recorded.items():
        scores = Scores(subject.data.num_classes)
        scores.update(logits[name], None if name == "teacher" else logits.get("teacher"), y)
        now = scores.compute()
        checks += [
            Check(f"{name} {key}", value, now[key], tolerances.get(key, fraction))
            for key, value in values.items()
            if key in now
        ]
    notes = [f"{len(y):,} test images, {inference.precision} on {inference.accelerator}."]
    if not same:
        notes.append(f"The run itself: {metrics['precision']} on {metrics['accelerator']}; tolerance × {ELSEWHERE}.")
    if subject.note is not None:
        notes.append(subject.note)
    return Verification(path, checks, notes)


def verify_all(paths: Sequence[Path], overrides: Sequence[str] = ()) -> int:
    """Says of each run how its numbers come out; returns 0, 1 if one does not reproduce, 2 if one cannot be tested."""
    status = 0
    for path in paths:
        try:
            result = verify(path, list(overrides))
        except UserError as e:
            status = fail(e)
            continue
        say(result.table())
        say(result.verdict)
        status = max(status, 0 if result.ok else 1)
    return status
