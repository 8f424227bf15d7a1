"""Averages of the student's weights, such as an exponential moving average (EMA)."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import EMAWeightAveraging, WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn

from kd_lightning.utils.console import say


class Careful(WeightAveraging):
    """Weight averaging whose weights are used only once there are some, and only while the student is trained.

    Lightning's own class validates, saves and ends with the initial weights as long as the average has not begun, and
    puts the last average in place of a checkpoint that is validated after the training.
    """

    @property
    def has_begun(self) -> bool:
        """Return whether at least one step is in the average."""
        return self._average_model is not None and bool(self._average_model.n_averaged > 0)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.has_begun and trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.has_begun and trainer.state.fn == TrainerFn.FITTING:
            super().on_validation_epoch_end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.has_begun:
            super().on_train_end(trainer, pl_module)
        else:
            steps = trainer.global_step
            say(f"warning: callbacks: no step of {steps} entered the average; the weights themselves count")

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.has_begun:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if "averaging_state" in checkpoint:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


class EMA(Careful, EMAWeightAveraging):
    """Exponential moving average of the student's weights and BatchNorm statistics.

    The first step that counts is copied; each later one enters with weight 1 - `decay`. The teacher is no part of it.

    Args:
        decay: Weight of what was before, in [0, 1).
        update_every_n_steps: Steps between two updates.
        update_starting_at_step: First step that counts; None for the first of all.
    """
