"""Calibration by one temperature, fitted on validation samples: of the deployed student, and of teachers."""

from collections.abc import Callable, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from kd_lightning.data.loader import eval_order
from kd_lightning.data.module import DataModule, Split
from kd_lightning.distiller import Distiller
from kd_lightning.teachers.scaled import ScaledTeacher
from kd_lightning.types import Batch, Outputs, Teacher, whole
from kd_lightning.utils.calibration import calibrated_scores, fit_temperature
from kd_lightning.utils.console import say
from kd_lightning.utils.names import task_name

SPLITS: tuple[Split, Split] = ("val", "test")


def calibrate(trainer: pl.Trainer, distiller: Distiller, data: DataModule) -> dict[str, Any] | None:
    """Fit the temperature that minimizes the student's NLL on validation samples (arXiv 1706.04599, section 4.2).

    The predicted classes stay the same. Runs on this process alone, over whole splits.

    Returns:
        `temperature`, and `val` and `test` with the calibrated `nll`, `ece` and `brier`, each by task if there are
        several; None without validation.
    """
    if not data.sizes["val"]:
        return None
    distiller.to(trainer.strategy.root_device).eval()

    def answer(batch: Batch) -> Any:
        return distiller(trainer.precision_plugin.convert_input(batch.x))

    val, test = (_answers(trainer, answer, data, split) for split in SPLITS)
    temperatures: dict[str, float] = {}
    scores: dict[str, dict[str, float]] = {"val": {}, "test": {}}
    for task in distiller.loss.tasks:
        temperatures[task] = fit_temperature(val[0][task], val[1][task])
        for split, (logits, y) in (("val", val), ("test", test)):
            found = calibrated_scores(logits[task], y[task], temperatures[task])
            scores[split] |= {task_name(task, name): value for name, value in found.items()}
    return {"temperature": whole(temperatures), **scores}


def calibrate_teacher(
    trainer: pl.Trainer, teacher: Teacher, data: DataModule, tasks: Sequence[str] = ("",)
) -> list[float]:
    """Fit the temperature of each teacher on validation samples, which it must not have been trained on.

    A teacher that is right on all of them keeps T = 1: its NLL would fall without end.

    Returns:
        The temperatures, which the teachers apply from now on.
    """
    device = trainer.strategy.root_device
    teacher.apply_(lambda tensor: tensor.to(device))
    scaled = []
    for task in tasks:
        own = teacher.of(task)
        for one in (own.members or [own]) if own is not None else ():
            if isinstance(one, ScaledTeacher):
                logits, y = _answers(trainer, _logits_of(one), data.of(task), "val")
                one.temperature = fit_temperature(logits[""], y[""])
                scaled.append(one)
    say(f"teacher: calibrated on validation samples, T = {', '.join(f'{one.temperature:.3f}' for one in scaled)}")
    return [one.temperature for one in scaled]


def _logits_of(teacher: Teacher) -> Callable[[Batch], Tensor]:
    return lambda batch: teacher.evaluate(batch).logits


@torch.no_grad()
def _answers(
    trainer: pl.Trainer, answer: Callable[[Batch], Any], data: DataModule, split: Split
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return logits `[N, C]` and labels `[N]` of a whole split by task, on the CPU."""
    source = data.splits[split]
    logits: dict[str, list[Tensor]] = {}
    labels: dict[str, list[Tensor]] = {}
    order, device = eval_order(len(source)), trainer.strategy.root_device
    with trainer.precision_plugin.forward_context():
        for batch in source.batches(order, data.eval_batch_size, data.view_seed, 0, device):
            said = Outputs(answer(batch))
            for task in data.tasks or ("",):
                logits.setdefault(task, []).append(said.of(task).logits.float().cpu())
                labels.setdefault(task, []).append(batch.of(task).y.cpu())
    return {t: torch.cat(parts) for t, parts in logits.items()}, {t: torch.cat(parts) for t, parts in labels.items()}
