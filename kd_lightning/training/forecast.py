"""A forecast of how long a training takes on this machine, told after its first few steps."""

import math
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import lightning.pytorch as pl
import torch

from kd_lightning.runs.command import Command
from kd_lightning.utils.console import say

FEW, ENOUGH = 3, 20
"""Steps that are measured at least, and at most."""
SECONDS = 1.0
"""Seconds after which so few steps are enough."""
LONG = 3 * 3600
"""Seconds from which on a CPU is not the place for it."""
SHORTER = (
    "That is long for a CPU. Shorter: {}; fewer epochs (trainer.max_epochs=…, teacher_stage.max_epochs=…); a teacher "
    "that is trained (model.teacher_weights=PATH). To see it work in a minute: experiment=quickstart"
)

_later: ContextVar[float] = ContextVar("later", default=0.0)


@contextmanager
def followed_by(work: float) -> Iterator[None]:
    """Let what is trained inside be a stage that so much `work` follows."""
    token = _later.set(_later.get() + work)
    try:
        yield
    finally:
        _later.reset(token)


class Forecast(pl.Callback):
    """Says once how long the training will take at the pace of its first steps, and what follows it.

    Args:
        work: Its own, as `work` counts it.
        evaluated: Samples of a validation over samples of an epoch.
        cheaper: What to type for less work a sample.
    """

    def __init__(self, work: float, evaluated: float, cheaper: str) -> None:
        self._evaluated, self._cheaper = evaluated, cheaper
        self.later = _later.get() / work if work else 0.0
        """Work of the stages that follow, as a multiple of this one's."""
        self.seconds: float | None = None
        """Seconds of the whole stage from its first step on; None before it was measured."""
        self._since, self._steps, self._first = 0.0, -1, 0

    @property
    def stage(self) -> str:
        """`teacher` if a student follows, else `student`."""
        return "teacher" if self.later else "student"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._first = trainer.global_step  # not 0 where it goes on

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.seconds is not None:
            return
        self._steps += 1
        if not self._steps:  # the first one is start-up
            self._since = _now(pl_module.device)
            return
        passed = time.perf_counter() - self._since
        if (self._steps >= FEW and passed >= SECONDS) or self._steps >= ENOUGH or trainer.is_last_batch:
            ahead = 0.0 if pl_module.teacher is None else pl_module.teacher.seconds_ahead
            self._tell(trainer, (_now(pl_module.device) - self._since) / self._steps, ahead)

    def _tell(self, trainer: pl.Trainer, pace: float, ahead: float) -> None:
        steps = trainer.estimated_stepping_batches - self._first
        epochs = steps / math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        batches = epochs * trainer.num_training_batches
        self.seconds = pace * batches * (1 + self._evaluated / 3)  # no backward pass, which costs two
        self.seconds += ahead * asked(epochs, trainer.datamodule.num_views)  # type: ignore[attr-defined]
        count, what = round(epochs), "epoch"
        if 0 < trainer.max_steps <= trainer.estimated_stepping_batches:
            count, what = round(steps), "step"
        told = f"{self.stage}: about {duration(self.seconds)} here for {count:,} {what}{'s' * (count != 1)}"
        told += f" ({1000 * pace * trainer.accumulate_grad_batches:.0f} ms a step)"
        later = self.later * self.seconds
        if later:
            told += f"; then the student, about {duration(later)}"
        total, command = self.seconds + later, Command()
        sweep = command.sweep
        if sweep and sweep.runs and sweep.in_turn and not command.has_told_time:
            command.has_told_time = True
            each = later or self.seconds
            total = self.seconds + each * sweep.runs if later else each * sweep.runs
            told += f"; all {sweep.runs} runs about {duration(total)}, if they are alike"
        say(told, detail=total < 60)
        if total > LONG and trainer.strategy.root_device.type == "cpu":
            say(textwrap.indent(textwrap.fill(SHORTER.format(self._cheaper), 71, break_on_hyphens=False), " " * 9))


def asked(epochs: float, views: int | None) -> float:
    """Return how many times the first epoch's answers are asked, where each epoch shows a sample in one of `views`."""
    return epochs if views is None else views * (1 - (1 - 1 / views) ** epochs)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def duration(seconds: float) -> str:
    """`95 s`, `12.3 min`, `4.5 h`."""
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.1f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
