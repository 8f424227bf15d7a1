"""The progress bar of a training, in 80 columns."""

import time
from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

from kd_lightning.training.forecast import Forecast
from kd_lightning.training.terms import step_terms
from kd_lightning.training.train_log import TrainLog
from kd_lightning.utils.console import above


class Bar(RichProgressBar):
    """Lightning's bar in 80 columns: what is trained, loss and accuracy of the last window, validation, time left."""

    def __init__(self, log: TrainLog, forecast: Forecast) -> None:
        super().__init__(refresh_rate=10, leave=False, theme=RichProgressBarTheme(metrics_text_delimiter=" "))
        self._log, self._forecast = log, forecast
        self._loss: Any = None
        self._started: tuple[int, float] = (0, 0.0)
        self._live = ExitStack()

    def _init_progress(self, trainer: pl.Trainer) -> None:
        super()._init_progress(trainer)
        if self.progress is not None:
            self.progress.live.transient = True  # what is over leaves no line; `say` tells results
            self._live.close()
            self._live.enter_context(above(self.progress.console))

    def _stop_progress(self) -> None:
        super()._stop_progress()
        self._live.close()

    def configure_columns(self, trainer: pl.Trainer) -> list[Any]:
        return [TextColumn("{task.description}"), BarColumn(bar_width=4), MofNCompleteColumn()]

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{self._forecast.stage} {current_epoch + 1}/{self.trainer.max_epochs}"

    @property
    def validation_description(self) -> str:
        return "validation"

    @property
    def test_description(self) -> str:
        return "test"

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._started = (trainer.global_step, time.perf_counter())

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._loss = step_terms(trainer, outputs)["loss"] if isinstance(outputs, dict) else None
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        latest = self._log.latest
        if not latest:  # the first window of steps, where reading a loss may make the device wait
            loss = {} if self._loss is None else {"loss": f"{float(self._loss):.2f}"}
            return loss | {"left": self._time_left(trainer)}
        metrics = {"loss": f"{latest['loss']:.2f}", "acc": f"{latest['accuracy']:.0%}"}
        if "val/accuracy" in trainer.callback_metrics:
            metrics["val"] = f"{trainer.callback_metrics['val/accuracy']:.1%}"
        return metrics | {"left": self._time_left(trainer)}

    def _time_left(self, trainer: pl.Trainer) -> str:
        """Time left of the whole job at the pace so far: this training, its validations, and a student that follows.

        The seconds before an epoch, in which its teacher is asked, belong to all steps of that epoch.
        """
        first, since = self._started
        done, total = trainer.global_step - first, trainer.estimated_stepping_batches - first
        if not done:
            return "?"
        module: Any = trainer.lightning_module
        ahead = module.teacher.seconds_ahead if module.teacher else 0.0
        steps_to_come = 1 - (trainer.fit_loop.batch_idx + 1) / trainer.num_training_batches
        pace = (time.perf_counter() - since - ahead * steps_to_come) / done
        later = self._forecast.later * total
        minutes, seconds = divmod(int(pace * (total - done + later)), 60)
        return f"{minutes}:{seconds:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
