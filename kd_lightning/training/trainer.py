"""The Lightning Trainer of a run."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from omegaconf import DictConfig, ListConfig, OmegaConf

from kd_lightning.config import build
from kd_lightning.data.loader import batches_of_epoch
from kd_lightning.data.module import DataModule
from kd_lightning.training.checkpoints import Checkpoints
from kd_lightning.training.ddp import Ddp
from kd_lightning.training.extras import build_callbacks, build_loggers
from kd_lightning.training.forecast import Forecast
from kd_lightning.training.nonfinite import NonFinite
from kd_lightning.training.processes import (
    EndsWhenAsked,
    OneFolder,
    check_launcher,
    leave_signals_to_others,
    watch_children,
)
from kd_lightning.training.progress_bar import Bar
from kd_lightning.training.tensorboard import Events, Observer
from kd_lightning.training.train_log import TrainLog
from kd_lightning.utils import hardware
from kd_lightning.utils.annotations import check_annotations
from kd_lightning.utils.checks import UserError, choice, did_you_mean, integer, number
from kd_lightning.utils.console import is_watched
from kd_lightning.utils.trainer_arguments import REFUSED, arguments

PROFILERS: dict[str, Callable[..., Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": partial(PyTorchProfiler, schedule=torch.profiler.schedule(wait=0, warmup=1, active=3)),
}
"""Lightning's own schedule of the last, with `wait=1`, fails in a validation of few batches."""
OURS = ("skip_nonfinite", "keep_epochs")
"""Keys of the group `trainer` that Lightning's Trainer does not have."""
SWITCHES = ("detect_anomaly", "sync_batchnorm", "enable_progress_bar", "enable_model_summary")
"""Keys that are true or false; some of the Trainer's parts take 0 and 1, too, and some fail on them."""
ALONE = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
"""Arguments of a Trainer that trains nothing."""


def resolve_trainer(node: DictConfig, least_epochs: int = 1) -> DictConfig:
    """Return the `trainer` group with `auto` replaced by what this machine has. Raises UserError."""
    node = DictConfig(OmegaConf.to_container(node, resolve=True))  # its keys may take values of other groups
    _check_keys(node)
    choice_or_count("trainer.fast_dev_run", node.get("fast_dev_run", False))
    for key in SWITCHES:
        if not isinstance(value := node.get(key, False), bool):
            raise UserError(f"trainer.{key} must be true or false, got {value!r}")
    integer("trainer.max_epochs", node.max_epochs, ge=least_epochs)
    integer("trainer.log_every_n_steps", node.log_every_n_steps, ge=1)
    integer("trainer.accumulate_grad_batches", node.accumulate_grad_batches, ge=1)
    integer("trainer.max_steps", node.max_steps, ge=-1)
    if node.max_steps == 0:
        raise UserError("trainer.max_steps must be -1 (no limit) or >= 1, got 0")
    if not isinstance(node.max_time, str | DictConfig | None):
        raise UserError(f"trainer.max_time must be DD:HH:MM:SS or {{hours: …}}, got {node.max_time!r}")
    integer("trainer.skip_nonfinite", node.skip_nonfinite, ge=0)
    _check_kept(node)
    choice("trainer.profiler", node.profiler, (None, *PROFILERS))
    node.accelerator = hardware.resolve_accelerator(node.accelerator)
    node.devices = hardware.resolve_devices(node.devices, node.accelerator)
    check_launcher(node.devices)
    node.precision = hardware.resolve_precision(node.precision, node.accelerator)
    if node.skip_nonfinite and node.precision == "16-mixed":
        raise UserError(
            "trainer.skip_nonfinite: 16-mixed leaves out such steps by itself; use it with another precision"
        )
    if node.sync_batchnorm and node.accelerator == "cpu":
        raise UserError("trainer.sync_batchnorm=true needs a GPU: torch has none for the CPU; leave it out")
    if node.gradient_clip_val is not None:
        number("trainer.gradient_clip_val", node.gradient_clip_val, ge=0)
    if node.get("check_val_every_n_epoch") is not None:
        integer("trainer.check_val_every_n_epoch", node.check_val_every_n_epoch, ge=1)
    given: Any = OmegaConf.to_container(node, resolve=True)
    check_annotations(pl.Trainer, given, "trainer")
    _try_trainer(node)
    return node


def _check_keys(node: DictConfig) -> None:
    """Raise UserError for a key that nothing would read."""
    for key in map(str, node):
        if key in REFUSED:
            raise UserError(f"trainer.{key}: {REFUSED[key]}")
        if key not in (*arguments(), *OURS, "_target_"):
            raise UserError(f"trainer.{key}: Lightning's Trainer has no such argument{did_you_mean(key, arguments())}")


def _check_kept(node: DictConfig) -> None:
    """Raise UserError unless `keep_epochs` is a list of epochs that the training has."""
    kept = node.get("keep_epochs") or []  # a run of before has none
    if not isinstance(kept, ListConfig | list):
        raise UserError(f"trainer.keep_epochs must be a list of epochs such as [10,20], got {kept!r}")
    for epoch in kept:
        integer("trainer.keep_epochs", epoch, ge=1, le=node.max_epochs)


def choice_or_count(key: str, value: Any) -> None:
    """Raise UserError unless `value` is true, false or a whole number >= 0."""
    if not isinstance(value, bool):
        integer(key, value, ge=0)


def is_trial(node: DictConfig) -> bool:
    """Return whether a `trainer` group only tries something out, so that no teacher need be trained for it."""
    return bool(node.get("fast_dev_run") or node.get("overfit_batches"))


def _try_trainer(node: DictConfig) -> None:
    """Find a value that the Trainer refuses before a teacher is trained for hours. Raises UserError."""
    try:
        _lightning(node, **ALONE)
    except UserError as e:
        plain = OmegaConf.create({"_target_": node._target_, "accelerator": node.accelerator})
        for key, value in node.items():  # it seldom says which of them it was
            if key in OURS:
                continue
            try:
                build(plain, f"trainer.{key!s}={value}", **(ALONE | {str(key): value}))
            except UserError as refused:
                raise refused from e
        raise


def num_processes(node: DictConfig) -> int:
    """Return the number of processes of a resolved `trainer` group, over all nodes."""
    return int(_lightning(node, **ALONE).world_size)


def _lightning(node: DictConfig, **kwargs: Any) -> pl.Trainer:
    trainer: pl.Trainer = build(
        OmegaConf.masked_copy(node, [str(key) for key in node if key not in OURS]), "trainer", **kwargs
    )
    return trainer


def check_limits(node: DictConfig, data: DataModule) -> None:
    """Find a `trainer.limit_*_batches` that leaves nothing of a split, before anything is trained. Raises UserError."""
    sizes = {"train": data.batch_size, "val": data.eval_batch_size, "test": data.eval_batch_size}
    _check_interval(node, _train_batches(node, data))
    overfit = node.get("overfit_batches") or None
    for split, batch in sizes.items():
        key, limit = f"trainer.limit_{split}_batches", node[f"limit_{split}_batches"]
        if overfit and split != "test":
            key, limit = "trainer.overfit_batches", overfit
        samples = data.sizes.get(split, 0)  # type: ignore[call-overload]
        if limit is None or not samples:
            continue
        if split == "val" and limit == 0:
            raise UserError(f"{key}=0 would validate on nothing; to train without validation: data.val_size=0")
        number(key, limit, gt=0)
        batches = max(1, -(-samples // (batch * num_processes(node))))
        if isinstance(limit, float) and int(limit * batches) < 1:
            raise UserError(f"{key}={limit} of {batches} batches is less than one; give at least {1 / batches:.2g}")


def steps_of_epoch(node: DictConfig, data: DataModule) -> int:
    """Return the number of optimizer steps of an epoch."""
    return -(-_train_batches(node, data) // int(node.accumulate_grad_batches))


def _train_batches(node: DictConfig, data: DataModule) -> int:
    batches = batches_of_epoch(data.sizes["train"], data.batch_size, num_processes(node))
    limit = node.get("overfit_batches") or node.limit_train_batches
    if limit is None:
        return batches
    return int(limit * batches) if isinstance(limit, float) else min(limit, batches)


def _check_interval(node: DictConfig, batches: int) -> None:
    """Raise UserError for a `val_check_interval` of no batch, or of more than an epoch has."""
    key, interval = "trainer.val_check_interval", node.get("val_check_interval")
    if isinstance(interval, int | float):
        number(key, interval, gt=0)
    if isinstance(interval, int) and interval > batches and node.check_val_every_n_epoch:
        raise UserError(
            f"{key}={interval} is more than the {batches} batches of an epoch; to count them across epochs add "
            "trainer.check_val_every_n_epoch=null"
        )


def build_trainer(
    node: DictConfig,
    out: Path,
    has_val: bool,
    loggers: Any = None,
    more: Any = None,
    forecast: Forecast | None = None,
    has_buffers: bool = True,
    origin: Mapping[str, Any] | None = None,
) -> tuple[pl.Trainer, TrainLog]:
    """Return a Trainer that checkpoints to `out`, and its log of training.

    Args:
        node: The resolved group `trainer`.
        out: The run directory.
        has_val: A validation split chooses the best epoch.
        loggers: The group `logger`; None for TensorBoard alone.
        more: The group `callbacks`, in addition to ours.
        forecast: Says how long it will take.
        has_buffers: The networks have buffers, as BatchNorm's statistics.
        origin: What the training learns from, for its checkpoints.

    Raises:
        UserError: If one of them cannot be made.
    """
    guard = NonFinite(out, node.log_every_n_steps, node.skip_nonfinite)
    log = TrainLog(node.log_every_n_steps, guard)
    checkpoints = Checkpoints(out, has_val, list(node.get("keep_epochs") or []), origin)
    callbacks = [
        OneFolder(out),
        EndsWhenAsked(),
        guard,
        log,
        Observer(),
        *build_callbacks(more, node.accelerator),
        checkpoints,
    ]
    forecast = forecast or Forecast(0.0, 0.0, "")
    callbacks.append(forecast)
    watched = bool(node.enable_progress_bar) and is_watched()
    if watched:
        callbacks.append(Bar(log, forecast))
    strategy = node.strategy
    if strategy == "auto" and num_processes(node) > 1:
        strategy = Ddp(buffers_are_equal=bool(node.sync_batchnorm) or not has_buffers)
    trainer = _lightning(
        node,
        strategy=strategy,
        callbacks=callbacks,
        logger=[Events(out)] if loggers is None else build_loggers(loggers, out),
        profiler=_profiler(node.profiler, out),
        enable_progress_bar=watched,
        inference_mode=False,  # metrics live on from validation to fit, and tensors of inference mode may not
        num_sanity_val_steps=0,  # the teacher is measured on the whole validation split instead
        use_distributed_sampler=False,  # our loaders know their rank
        default_root_dir=out,  # elsewhere Lightning would go on from any hpc_ckpt_N.ckpt that lies there
    )
    watch_children()
    leave_signals_to_others(trainer)
    return trainer, log


def _profiler(name: str | None, out: Path) -> Profiler | None:
    return None if name is None else PROFILERS[name](dirpath=out, filename="profile")  # fit-profile.txt
