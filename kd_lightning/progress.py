"""What is seen of a training while it runs: the means of its terms, its speed, and the progress bar."""

import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from lightning.pytorch.loggers import TensorBoardLogger
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from torch import Tensor

from kd_lightning.types import Batch


class TrainLog(pl.Callback):
    """Logs the mean of each training term, the learning rate and images/s every `every` steps.

    The terms are summed on the device and read once per window: reading one each step would make the device wait.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self.latest: dict[str, float] = {}
        self.images_per_second: list[tuple[int, float]] = []  # (images, seconds) of each window
        self._sums: dict[str, Tensor] = {}
        self._batches = self._images = 0
        self._since = 0.0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._start_window()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        for name, value in outputs.items():
            self._sums[name] = self._sums[name] + value.detach() if name in self._sums else value.detach().clone()
        self._batches += 1
        self._images += len(batch.y) * trainer.world_size
        if self._batches >= self.every or trainer.is_last_batch:
            self._log(trainer)

    def _log(self, trainer: pl.Trainer) -> None:
        names = list(self._sums)
        means = (torch.stack([self._sums[n].float() for n in names]) / self._batches).tolist()  # waits for the device
        seconds = time.perf_counter() - self._since
        self.images_per_second.append((self._images, seconds))
        self.latest = dict(zip(names, means, strict=True)) | {"images_per_second": self._images / seconds}
        values = {f"train/{name}": value for name, value in self.latest.items()}
        values["train/lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        self._start_window()

    def _start_window(self) -> None:
        self._sums = {}
        self._batches = self._images = 0
        self._since = time.perf_counter()

    def latest_terms(self) -> dict[str, float]:
        """The loss, its parts and what is shown beside them: means over the last window of training steps."""
        return {name: value for name, value in self.latest.items() if name != "images_per_second"}

    def mean_speed(self) -> float | None:
        """Images per second of training, validation excluded; the first window (start-up) counts only if alone."""
        windows = self.images_per_second[1:] or self.images_per_second
        return sum(n for n, _ in windows) / sum(s for _, s in windows) if windows else None


class Events(TensorBoardLogger):
    """One file of TensorBoard events a run, and no second record of its configuration."""

    def finalize(self, status: str) -> None:
        self.experiment.flush()  # not closed: validation, training and tests all end with a `finalize`

    def save(self) -> None:
        """`config.yaml` says what `hparams.yaml` would."""


class Bar(RichProgressBar):
    """Lightning's bar in 80 columns: loss and accuracy of the last window, validation accuracy, speed, time left."""

    def __init__(self, log: TrainLog) -> None:
        super().__init__(refresh_rate=10, leave=False, theme=RichProgressBarTheme(metrics_text_delimiter=" "))
        self._log = log
        self._started: tuple[int, float] = (0, 0.0)

    def configure_columns(self, trainer: pl.Trainer) -> list[Any]:
        return [TextColumn("{task.description}"), BarColumn(bar_width=4), MofNCompleteColumn()]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._started = (trainer.global_step, time.perf_counter())

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        latest = self._log.latest
        if not latest:
            return {}
        metrics = {"loss": f"{latest['loss']:.2f}", "acc": f"{latest['accuracy']:.0%}"}
        if "val/accuracy" in trainer.callback_metrics:
            metrics["val"] = f"{trainer.callback_metrics['val/accuracy']:.1%}"
        metrics["img/s"] = f"{latest['images_per_second']:.0f}"
        return metrics | {"left": self._time_left(trainer)}

    def _time_left(self, trainer: pl.Trainer) -> str:
        """Of the whole training, its validations included, at the pace so far."""
        first, since = self._started
        done, total = trainer.global_step - first, trainer.estimated_stepping_batches - first
        if not done:
            return "?"
        minutes, seconds = divmod(int((time.perf_counter() - since) / done * (total - done)), 60)
        return f"{minutes}:{seconds:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
