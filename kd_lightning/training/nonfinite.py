"""The first loss that is not a finite number: found, told, kept for a replay, and left out if that was asked for."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from kd_lightning import runs
from kd_lightning.training.terms import step_terms
from kd_lightning.types import Batch
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say
from kd_lightning.utils.files import write_text

HELP = (
    "a lower optimizer.lr, a warm-up (scheduler.warmup_epochs), trainer.gradient_clip_val=1 or precision 32-true; "
    "for a teacher that is trained first, teacher_stage.optimizer.lr and teacher_stage.scheduler.warmup_epochs"
)


class Diverged(UserError):
    """A training whose loss or weights are no longer finite numbers.

    Args:
        message: What was seen.
        how: `epoch`, `step` and whatever else is known, as plain values for `metrics.json`.
    """

    status = 3

    def __init__(self, message: str, how: dict[str, Any]) -> None:
        super().__init__(message)
        self.how = how
        self.is_recorded = False
        """True once the run that diverged has it in its folder: the run of its student then did not begin."""

    def __reduce__(self) -> tuple[Any, ...]:  # a launcher hands it from a run's process to the sweep's
        return type(self), (str(self), self.how)


def is_read_at_once(device: torch.device) -> bool:
    """Return whether a loss can be read after each step without making the device wait."""
    return device.type == "cpu"


class _Step(NamedTuple):
    epoch: int
    step: int
    batch: int
    lr: float
    terms: dict[str, Tensor]
    indices: Tensor
    view: Tensor | None


class NonFinite(pl.Callback):
    """Ends a training at its first loss that is not finite.

    Reading a loss makes a GPU wait, so there the losses of a window of steps are read together, when `TrainLog` reads
    its means, and the step is found among them. A CPU is asked after each step, as is any device with `skip` > 0.
    No checkpoint is written before the losses that led to it were read.

    Args:
        out: The run directory, for `nonfinite.json`.
        every: Steps of a window.
        skip: Number of optimizer steps that may be left out: their gradients are dropped, and running statistics of
            BatchNorm go back to what they were.
    """

    def __init__(self, out: Path, every: int, skip: int = 0) -> None:
        self.skipped = 0
        """Number of steps left out up to now."""
        self.skips_this = False
        """True from the loss on if the step in hand is left out."""
        self._out, self._every, self._skip = out, every, skip
        self._window: list[_Step] = []
        self._losses: list[Tensor] = []
        self._buffers: list[Tensor] = []

    def state_dict(self) -> dict[str, Any]:
        return {"skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.skipped = state["skipped"]

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.skips_this = False
        if self._skip and not self._losses:  # the first of the batches that make a step
            self._buffers = [buffer.clone() for buffer in pl_module.buffers()]

    @property
    def is_undecided(self) -> bool:
        """True between the batches of one step (`accumulate_grad_batches`) that may still be left out."""
        return bool(self._losses)

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        if self._skip:
            self._losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        losses, self._losses = self._losses, []
        if not losses:
            return
        finite = bool(torch.stack(losses).isfinite().all())
        if trainer.strategy.reduce_boolean_decision(finite, all=True) or self.skipped >= self._skip:
            return
        self.skips_this = True
        self.skipped += 1
        optimizer.zero_grad(set_to_none=True)  # with none, a step changes nothing, momentum included
        with torch.no_grad():
            for buffer, before in zip(pl_module.buffers(), self._buffers, strict=True):
                buffer.copy_(before)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        lr = trainer.optimizers[0].param_groups[0]["lr"]
        terms = step_terms(trainer, outputs)
        index, view = (batch.index, batch.view) if isinstance(batch, Batch) else (torch.empty(0), None)
        self._window.append(_Step(trainer.current_epoch, trainer.global_step, batch_idx, lr, terms, index, view))
        if self.is_undecided:
            return
        at_once = self._skip or is_read_at_once(pl_module.device)
        if at_once or len(self._window) >= self._every or trainer.is_last_batch:
            self._read(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._window:  # max_steps ended the epoch before its last batch
            self._read(trainer)

    def _read(self, trainer: pl.Trainer) -> None:
        window, self._window = self._window, []
        finite = torch.stack([step.terms["loss"] for step in window]).isfinite()
        n = int((~finite).int().argmax()) if not bool(finite.all()) else len(window)
        n = int(trainer.strategy.reduce(torch.tensor(n, device=finite.device), reduce_op="min"))
        if n < len(window):
            self._tell(window[n], here=not bool(finite[n]), rank=trainer.global_rank)

    def _tell(self, step: _Step, here: bool, rank: int) -> None:
        terms = {name: float(value) for name, value in step.terms.items()}
        how: dict[str, Any] = {"epoch": step.epoch, "step": step.step, "batch": step.batch, "lr": step.lr}
        how |= {"terms": {name: str(value) for name, value in terms.items()}}
        if here:
            views = None if step.view is None else step.view.tolist()
            entry = how | {"indices": step.indices.tolist(), "views": views, "skipped": self.skips_this}
            path = self._out / (runs.NONFINITE if rank == 0 else f"rank{rank}_{runs.NONFINITE}")
            known = json.loads(path.read_text()) if path.is_file() else []
            write_text(path, json.dumps([*known, entry]) + "\n")
        told = ", ".join(f"{name} {value:.4g}" for name, value in terms.items()) if here else "in another process"
        where = f"in epoch {step.epoch}, step {step.step} (batch {step.batch}, lr {step.lr:.4g}): {told}"
        if self.skips_this:
            say(f"the loss is not a finite number {where}; step {self.skipped} of {self._skip} left out")
            return
        more = f", after {self.skipped} steps left out" if self.skipped else ""
        raise Diverged(
            f"the loss became nan or infinite {where}{more}; the last good checkpoint and {self._out / runs.NONFINITE} "
            f"stay; what usually helps: {HELP}",
            how,
        )
