"""The Lightning Trainer of a run."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from omegaconf import DictConfig, OmegaConf

from kd_lightning import runs
from kd_lightning.config import build
from kd_lightning.training.progress_bar import Bar
from kd_lightning.training.tensorboard import Events, Observer
from kd_lightning.training.train_log import TrainLog
from kd_lightning.utils import hardware
from kd_lightning.utils.checks import UserError, choice, integer, number

PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}
ALONE = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
"""Arguments of a Trainer that trains nothing."""


def resolve_trainer(node: DictConfig, least_epochs: int = 1) -> DictConfig:
    """Return the `trainer` group with `auto` replaced by what this machine has. Raises UserError."""
    node = node.copy()
    integer("trainer.max_epochs", node.max_epochs, ge=least_epochs)
    integer("trainer.log_every_n_steps", node.log_every_n_steps, ge=1)
    integer("trainer.accumulate_grad_batches", node.accumulate_grad_batches, ge=1)
    choice("trainer.profiler", node.profiler, (None, *PROFILERS))
    node.accelerator = hardware.resolve_accelerator(node.accelerator)
    node.devices = hardware.resolve_devices(node.devices, node.accelerator)
    node.precision = hardware.resolve_precision(node.precision, node.accelerator)
    if node.sync_batchnorm and node.accelerator == "cpu":
        raise UserError("trainer.sync_batchnorm=true needs a GPU: torch has none for the CPU; leave it out")
    if node.gradient_clip_val is not None:
        number("trainer.gradient_clip_val", node.gradient_clip_val, ge=0)
    _try_trainer(node)
    return node


def _try_trainer(node: DictConfig) -> None:
    """Find a value that the Trainer refuses before a teacher is trained for hours. Raises UserError."""
    try:
        build(node, "trainer", **ALONE)
    except UserError as e:
        plain = OmegaConf.create({"_target_": node._target_, "accelerator": node.accelerator})
        for key, value in node.items():  # it seldom says which of them it was
            try:
                build(plain, f"trainer.{key!s}={value}", **(ALONE | {str(key): value}))
            except UserError as refused:
                raise refused from e
        raise


def num_processes(node: DictConfig) -> int:
    """Return the number of processes of a resolved `trainer` group, over all nodes."""
    return int(build(node, "trainer", **ALONE).world_size)


def build_trainer(node: DictConfig, out: Path, has_val: bool) -> tuple[pl.Trainer, TrainLog]:
    """Return a Trainer that logs to TensorBoard and checkpoints to `out`, and its log of training. Raises UserError."""
    log = TrainLog(node.log_every_n_steps)
    callbacks: list[pl.Callback] = [log, Observer(), _checkpoint(out, runs.LAST)]
    if has_val:
        callbacks.append(_checkpoint(out, runs.BEST, monitor="val/accuracy", mode="max"))
    if node.enable_progress_bar:
        callbacks.append(Bar(log))
    trainer = build(
        node,
        "trainer",
        callbacks=callbacks,
        logger=Events(out, name="", version="", default_hp_metric=False),
        plugins=[AsyncCheckpointIO()],  # the next epoch does not wait for the disk
        profiler=_profiler(node.profiler, out),
        inference_mode=False,  # metrics live on from validation to fit, and tensors of inference mode may not
        num_sanity_val_steps=0,  # the teacher is measured on the whole validation split instead
        use_distributed_sampler=False,  # our loaders know their rank
    )
    return trainer, log


def _profiler(name: str | None, out: Path) -> Profiler | None:
    return None if name is None else PROFILERS[name](dirpath=out, filename="profile")  # fit-profile.txt


def _checkpoint(out: Path, file: str, **how: Any) -> ModelCheckpoint:
    name = file.removesuffix(".ckpt")
    return ModelCheckpoint(out, name, save_top_k=1, enable_version_counter=False, save_on_train_epoch_end=True, **how)
