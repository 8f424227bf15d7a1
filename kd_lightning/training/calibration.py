"""Calibration by one temperature, fitted on validation samples: of the deployed student, and of teachers."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from kd_lightning.data.loader import eval_order
from kd_lightning.data.module import DataModule, Split
from kd_lightning.distiller import Distiller
from kd_lightning.teachers.scaled import ScaledTeacher
from kd_lightning.types import Batch, Teacher
from kd_lightning.utils.calibration import calibrated_scores, fit_temperature
from kd_lightning.utils.console import say


def calibrate(trainer: pl.Trainer, distiller: Distiller, data: DataModule) -> dict[str, Any] | None:
    """Fit the temperature that minimizes the student's NLL on validation samples (arXiv 1706.04599, section 4.2).

    The predicted classes stay the same. Runs on this process alone, over whole splits.

    Returns:
        `temperature`, and `val` and `test` with the calibrated `nll`, `ece` and `brier`; None without validation.
    """
    if not data.sizes["val"]:
        return None
    distiller.to(trainer.strategy.root_device).eval()

    def answer(batch: Batch) -> Tensor:
        return distiller(trainer.precision_plugin.convert_input(batch.x))

    logits, y = _answers(trainer, answer, data, "val")
    temperature = fit_temperature(logits, y)
    scores = {"val": calibrated_scores(logits, y, temperature)}
    scores["test"] = calibrated_scores(*_answers(trainer, answer, data, "test"), temperature)
    return {"temperature": temperature} | scores


def calibrate_teacher(trainer: pl.Trainer, teacher: Teacher, data: DataModule) -> list[float]:
    """Fit the temperature of each teacher on validation samples, which it must not have been trained on.

    A teacher that is right on all of them keeps T = 1: its NLL would fall without end.

    Returns:
        The temperatures, which the teachers apply from now on.
    """
    device = trainer.strategy.root_device
    teacher.apply_(lambda tensor: tensor.to(device))
    scaled = [one for one in teacher.members or [teacher] if isinstance(one, ScaledTeacher)]
    for one in scaled:
        one.temperature = fit_temperature(*_answers(trainer, _logits_of(one), data, "val"))
    say(f"teacher: calibrated on validation samples, T = {', '.join(f'{one.temperature:.3f}' for one in scaled)}")
    return [one.temperature for one in scaled]


def _logits_of(teacher: Teacher) -> Callable[[Batch], Tensor]:
    return lambda batch: teacher.evaluate(batch).logits


@torch.no_grad()
def _answers(
    trainer: pl.Trainer, answer: Callable[[Batch], Tensor], data: DataModule, split: Split
) -> tuple[Tensor, Tensor]:
    """Return logits `[N, C]` and labels `[N]` of a whole split, on the CPU."""
    source, logits, labels = data.splits[split], [], []
    order, device = eval_order(len(source)), trainer.strategy.root_device
    with trainer.precision_plugin.forward_context():
        for batch in source.batches(order, data.eval_batch_size, data.seed, 0, device):
            logits.append(answer(batch).float().cpu())
            labels.append(batch.y.cpu())
    return torch.cat(logits), torch.cat(labels)
