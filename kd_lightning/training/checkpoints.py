"""Checkpoints of a training: whole at every moment, written while the next epoch runs."""

import io
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor
from torch.utils._pytree import tree_map

from kd_lightning import runs
from kd_lightning.training.nonfinite import HELP, Diverged
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.files import write_whole


class Checkpoints(Checkpoint):
    """Writes `last.ckpt` after each epoch, and `best.ckpt` after one whose `val/accuracy` is higher than before.

    Both come from one snapshot that already knows which epoch is the best, so that a run that goes on from any of them
    ends as if it had never stopped. Random states of torch are in it, too. The last checkpoint but one stays as
    `previous.ckpt`: where the disk damages the last one, the training goes on from there.

    Args:
        out: The run directory.
        has_val: A validation split chooses the best epoch.
        keep: Numbers of the epochs, from 1, whose checkpoints stay as `epoch=N.ckpt`.
        origin: What the training learns from, as plain values; see `check_origin`.
    """

    def __init__(
        self, out: Path, has_val: bool, keep: Sequence[int] = (), origin: Mapping[str, Any] | None = None
    ) -> None:
        self._out, self._has_val, self._keep, self._origin = out, has_val, keep, dict(origin or {})
        self._best = -1.0
        self._random: dict[str, Tensor] | None = None
        self._writer = Writer()

    def state_dict(self) -> dict[str, Any]:
        random = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            random["cuda"] = torch.cuda.get_rng_state()
        return {"best": self._best, "random": random, "origin": self._origin}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._random = state["best"], state["random"]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let the loops begin the next epoch as any other.

        With `max_steps` Lightning takes every checkpoint for one from the middle of an epoch: it would not say that an
        epoch begins, so that a cached teacher answered for the views of another one, and would leave the epoch out.
        """
        loop = checkpoint["loops"]["fit_loop"]
        for progress in (loop["epoch_progress"]["total"], loop["epoch_progress"]["current"]):
            progress["completed"] = progress["processed"]
        batches = loop["epoch_loop.batch_progress"]
        batches |= {"current": dict.fromkeys(batches["current"], 0), "is_last_batch": False}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        random, self._random = self._random, None
        if random is not None:
            torch.set_rng_state(random["cpu"].cpu())
            if "cuda" in random and torch.cuda.is_available():
                torch.cuda.set_rng_state(random["cuda"].cpu())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # nothing is kept then
            return
        files = [runs.LAST]
        if self._has_val and "val/accuracy" in trainer.callback_metrics:
            score = float(trainer.callback_metrics["val/accuracy"])
            if score > self._best:
                self._best, files = score, [runs.BEST, runs.LAST]  # the best one first: the last one knows of it
        if trainer.current_epoch + 1 in self._keep:
            files.insert(0, runs.EPOCH.format(trainer.current_epoch + 1))
        state = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)  # on all ranks, as in Lightning
        if not trainer.is_global_zero:
            return
        snapshot = tree_map(_copied, state)
        weights = {name: value for name, value in snapshot["state_dict"].items() if isinstance(value, Tensor)}
        if broken := [name for name, value in weights.items() if not value.isfinite().all()]:
            raise Diverged(
                f"after epoch {trainer.current_epoch} the weights are not finite numbers, in {broken[0]}; the last "
                f"good checkpoint stays; what usually helps: {HELP}",
                {"epoch": trainer.current_epoch, "step": trainer.global_step, "weights": broken[:8]},
            )
        self._writer.start(lambda: self._write(snapshot, files))

    def _write(self, snapshot: dict[str, Any], files: list[str]) -> None:
        buffer = io.BytesIO()
        torch.save(snapshot, buffer)
        for name in files:
            keep = self._keep_previous if name == runs.LAST else None
            write_whole(self._out / name, lambda partial: partial.write_bytes(buffer.getbuffer()), before=keep)

    def _keep_previous(self) -> None:
        if (self._out / runs.LAST).exists():
            (self._out / runs.LAST).replace(self._out / runs.PREVIOUS)

    def wait(self) -> None:
        """Wait until all is on the disk. Raises OSError if it could not be written."""
        self._writer.wait()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        try:
            self._writer.wait()
        except OSError as e:
            if not isinstance(exception, OSError):
                raise e from exception

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._writer.wait()


def check_origin(checkpoint: Path, origin: Mapping[str, Any]) -> None:
    """Raise UserError if the training up to `checkpoint` learned from something else.

    Args:
        checkpoint: One that this version or an older one wrote.
        origin: What it would go on with, by name: checksums of the teachers' weights, numbers of samples.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    before = state["callbacks"].get(Checkpoints.__name__, {}).get("origin", {})
    for name in before.keys() & origin.keys():
        if before[name] != origin[name]:
            raise UserError(
                f"resume: {name} is {origin[name]}, and was {before[name]} when {checkpoint.parent} stopped; put back "
                "what it learned from, or start a new run"
            )


def _copied(leaf: Any) -> Any:
    return leaf.detach().to("cpu", copy=True) if isinstance(leaf, Tensor) else leaf


class Writer:
    """Runs one job at a time in a thread that ends with it; an error is raised by the next `start` or `wait`."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, job: Callable[[], None]) -> None:
        """Wait for the job before, then begin this one."""
        self.wait()

        def work() -> None:
            try:
                job()
            except BaseException as e:
                self._error = e

        self._thread = threading.Thread(target=work, name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait for the job. Raises what it raised."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error
