"""The log of a training: means of its terms over all processes, the learning rate, samples per second."""

import math
import time
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from kd_lightning.training.nonfinite import NonFinite
from kd_lightning.training.terms import step_terms
from kd_lightning.types import Batch
from kd_lightning.utils import timing
from kd_lightning.utils.timing import Stopwatch


class TrainLog(pl.Callback):
    """Logs the mean of each training term over all processes, the learning rate and images/s every `every` steps.

    Steps that `guard` leaves out do not count. The terms are summed on the device and read once per window: reading
    one each step would make the device wait. For the same reason the stopwatch runs on a GPU in one step of a window
    only, which stands for the others, and in the first batch of an epoch, which has more to do and stands for itself.
    """

    def __init__(self, every: int, guard: NonFinite) -> None:
        self.every, self._guard = every, guard
        self.latest: dict[str, float] = {}
        self.images_per_second: list[tuple[int, float]] = []  # (images, seconds) of each window
        self._sums: dict[str, Tensor] = {}
        self._batches = self._images = 0
        self._step: list[tuple[int, Any]] = []  # (images, terms) of the batches of a step that may be left out
        self._since = self._paused = 0.0
        self._measured = 0  # batches that the stopwatch still measures, on a GPU
        self._before, self._fitting_since = 0.0, math.nan
        self.parts = 1
        """Number of times the training was started or resumed."""
        self.images_seen: int | None = 0
        """Training samples of all steps and processes; None after the resume of a checkpoint that does not tell."""

    @property
    def seconds(self) -> float:
        """Seconds of training and validation up to now, those before an interruption included."""
        if math.isnan(self._fitting_since):  # nothing was trained
            return self._before
        return self._before + time.perf_counter() - self._fitting_since

    def state_dict(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            "parts": self.parts,
            "latest": self.latest,
            "images_seen": self.images_seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._before, self.parts, self.latest = state["seconds"], state["parts"] + 1, state["latest"]
        self.images_seen = state.get("images_seen")

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._fitting_since = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._start_window()
        pl_module.watch.start()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        pl_module.watch.lap("data")

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        pl_module.watch.lap("student")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        pl_module.watch.lap("optimizer")
        self._step.append((batch.size, step_terms(trainer, outputs)))
        if not self._guard.is_undecided:
            if not self._guard.skips_this:
                self._add()
            self._step = []
        self._batches += 1
        is_over = self._batches >= self.every or trainer.is_last_batch
        if is_over:
            self._log(trainer)
            if len(self.images_per_second) == 1:
                pl_module.watch.seconds.clear()  # the first window is start-up
        self._sample(trainer, pl_module.watch, pl_module.device.type, batch_idx, is_over)

    def _sample(self, trainer: pl.Trainer, watch: Stopwatch, device: str, batch_idx: int, is_over: bool) -> None:
        """Let the stopwatch run in the next batches that are measured; `is_over` where a window has ended."""
        to_come = min(self.every - self._batches, trainer.num_training_batches - batch_idx - 1)
        if device == "cpu":
            if is_over:
                watch.start()
        elif (is_over or batch_idx == 0) and to_come > 0:
            self._measured = min(trainer.accumulate_grad_batches, int(to_come))  # one of these makes the step
            watch.start(to_come / self._measured)
        else:
            self._measured -= 1
            if self._measured <= 0:
                watch.stop()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._paused = timing.now()
        pl_module.watch.pause()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Leave out the time of a validation within an epoch (`val_check_interval`)."""
        self._since += timing.now() - self._paused
        pl_module.watch.go_on()

    def _add(self) -> None:
        for images, terms in self._step:
            for name, value in terms.items():
                self._sums[name] = self._sums.get(name, 0.0) + images * value.float()
            self._images += images

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._batches:  # max_steps or max_time ended the epoch before its last batch
            self._log(trainer)

    def _log(self, trainer: pl.Trainer) -> None:
        if not self._sums:  # no step of the window was made: it is not decided yet, or all were left out
            if not self._step:
                self._start_window()
            return
        names = list(self._sums)
        own = torch.stack([*self._sums.values(), next(iter(self._sums.values())).new_tensor(self._images)])
        *sums, images = trainer.strategy.reduce(own, reduce_op="sum").tolist()  # waits for the device
        seconds = time.perf_counter() - self._since
        self.images_per_second.append((int(images), seconds))
        if self.images_seen is not None:
            self.images_seen += int(images)
        self.latest = {name: value / images for name, value in zip(names, sums, strict=True)}
        self.latest["images_per_second"] = images / seconds
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
