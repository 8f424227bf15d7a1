"""TensorBoard events of a run, and what they show of a distillation beside its curves, once an epoch."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn

from kd_lightning.distiller import Distiller
from kd_lightning.types import part
from kd_lightning.utils.names import task_name


class Events(TensorBoardLogger):
    """One file of TensorBoard events a run, and no second record of its configuration.

    Args:
        save_dir: The run directory.
    """

    def __init__(self, save_dir: str | Path) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Log `epoch`, which Lightning adds, as `train/epoch`: by itself it would be the first group."""
        super().log_metrics({"train/epoch" if k == "epoch" else k: value for k, value in metrics.items()}, step)

    def finalize(self, status: str) -> None:
        self.experiment.flush()  # not closed: validation, training and tests all end with a `finalize`

    def save(self) -> None:
        """`config.yaml` says what `hparams.yaml` would."""


LAYOUT = {
    "distillation": {
        "loss and its terms": [
            "Multiline",
            [r"train/(?!(.+/)?(accuracy|agreement|epoch|lr|images_per_second|kd_over_ce)$).+"],
        ],
        "accuracy of student and teacher": ["Multiline", [r"(train/accuracy|val/accuracy|val/teacher_accuracy)$"]],
        "student and teacher: NLL": ["Multiline", [r"val/(teacher_)?nll$"]],
        "student and teacher: calibration error": ["Multiline", [r"val/(teacher_)?ece$"]],
    }
}
"""Curves that belong together, in TensorBoard's tab Custom Scalars; tags are regular expressions."""


class Observer(pl.Callback):
    """Logs which term of the loss is stronger, and how soft the answers of both networks are.

    `train/kd_over_ce`: see `losses.balance`, of the epoch's first training batch (of the first process's share).
    `z_soft_labels/teacher`, `z_soft_labels/student`: histogram of all probabilities `softmax(z / T)` of the first
    validation batch, at the T of the loss (1 where it has none): what the one is told and what the other says.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                logger.experiment.add_custom_scalars(LAYOUT)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Distiller)
        ratios = {task_name(task, "kd_over_ce"): ratio for task, ratio in pl_module.kd_over_ce.items()}
        known = {f"train/{name}": float(ratio) for name, ratio in ratios.items() if ratio is not None}
        for logger in trainer.loggers if known else ():
            logger.log_metrics(known, step=trainer.global_step)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int, *rest: Any
    ) -> None:
        assert isinstance(pl_module, Distiller)
        logger = next((one for one in trainer.loggers if isinstance(one, TensorBoardLogger)), None)
        fitting = trainer.state.fn == TrainerFn.FITTING  # not the check of the teacher before, or the best one's scores
        if batch_idx or not fitting or "teacher" not in outputs or logger is None:
            return
        for task in pl_module.loss.tasks if trainer.is_global_zero else ():
            temperature = float(torch.as_tensor(pl_module.loss.of(task).method.temperature()).detach())
            for name, answer in outputs.items():
                if task and task not in answer:
                    continue  # a task without a teacher
                logits = part(answer, task)
                soft = (logits.float() / temperature).softmax(1)
                tag = f"z_soft_labels/{task_name(task, name)}"
                if soft.isfinite().all():  # else the last step has destroyed the student, which the epoch's end tells
                    logger.experiment.add_histogram(tag, soft.cpu().numpy(), trainer.global_step)
