"""Faults around a training that are not its own: memory, processes that read, files left open."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from kd_lightning.utils.checks import LostProcess, UserError

SMALLER = (
    "lower data.batch_size (with trainer.accumulate_grad_batches for the same steps), data.eval_batch_size or "
    "data.image_size, or use trainer.precision=bf16-mixed"
)


@contextmanager
def lost_worker_in_one_line(remedy: str = "go on with resume=<run directory>") -> Iterator[None]:
    """Turn what is raised when a process that reads samples is gone into one line. Raises LostProcess.

    Reading from its pipe fails at once. A signal handler of torch raises another error wherever the program is when the
    signal comes, which may be while the first error is looked at: hence twice.
    """
    with _lost_worker_in_one_line(remedy), _lost_worker_in_one_line(remedy):
        yield


@contextmanager
def _lost_worker_in_one_line(remedy: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError, FileNotFoundError) as e:
        names = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(e.__traceback__)]
        if not (names[-1].startswith("torch.utils.data.") or "torch.multiprocessing.reductions" in names):
            raise
        reason = (str(e).splitlines() or [type(e).__name__])[0][:120]
        raise LostProcess(
            f"a process that reads samples is gone ({reason}); often the system killed it, out of memory: lower "
            f"data.num_workers, then {remedy}"
        ) from e


@contextmanager
def memory_in_one_line(batch_size: int, key: str = "data.batch_size", remedy: str = SMALLER) -> Iterator[None]:
    """Turn what is raised when memory is used up into one line; `key` is that of `batch_size`. Raises UserError."""
    try:
        yield
    except (MemoryError, RuntimeError) as e:
        text = str(e)
        full = isinstance(e, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in text
        if not full:
            raise
        reason = text.splitlines()[0][:80] if text else "main memory"
        raise UserError(f"out of memory with {key}={batch_size} ({reason}); {remedy}") from e


@contextmanager
def refusal_in_one_line() -> Iterator[None]:
    """Turn what Lightning's own callbacks refuse once the training runs into one line. Raises UserError.

    They look for a logger, or for the score that they watch, no earlier.
    """
    try:
        yield
    except (MisconfigurationException, RuntimeError) as e:
        *_, (frame, _) = traceback.walk_tb(e.__traceback__)
        raised_in = frame.f_globals.get("__name__", "")
        if not isinstance(e, MisconfigurationException) and raised_in != EarlyStopping.__module__:
            raise
        raise UserError(f"callbacks: {' '.join(str(e).split())}") from e


def close_loggers(trainer: pl.Trainer, failed: bool = False) -> None:
    """End what loggers hold open: TensorBoard's file and the thread that writes it, the run of Weights & Biases.

    After a run that `failed`, nothing that this raises may hide why.
    """
    if not trainer.is_global_zero:
        return
    for logger in trainer.loggers:
        if not isinstance(logger, TensorBoardLogger | WandbLogger) or logger._experiment is None:
            continue  # asking for `experiment` would open it
        with suppress(Exception) if failed else nullcontext():
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.close()
            else:
                logger.experiment.finish(exit_code=int(failed))
