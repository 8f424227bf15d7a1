"""Asking a teacher on one device, outside of a training."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.fabric import Fabric
from omegaconf import DictConfig, ListConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kd_lightning.data.module import DataModule
from kd_lightning.training.faults import lost_worker_in_one_line, memory_in_one_line
from kd_lightning.utils import hardware


def one_device(trainer: DictConfig) -> Fabric:
    """Return the Fabric that has the first device and the precision of a resolved `trainer` group."""
    if trainer.accelerator == "gpu":
        hardware.use_tf32()
    chosen = trainer.devices  # the numbers of GPUs, or how many processes
    devices = list(chosen)[:1] if isinstance(chosen, ListConfig | list) else 1
    return Fabric(accelerator=trainer.accelerator, devices=devices, precision=trainer.precision)


@contextmanager
def faults(data: DataModule) -> Iterator[None]:
    """Turn a lack of memory, or a lost process that reads, into one line. Raises UserError."""
    with (
        lost_worker_in_one_line("type the same command again"),
        memory_in_one_line(data.eval_batch_size, "data.eval_batch_size", "lower it"),
    ):
        yield


def progress_bar() -> Progress:
    """Return a bar of batches done, with the time that is left."""
    return Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
