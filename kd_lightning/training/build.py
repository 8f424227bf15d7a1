"""Everything a run needs, built and checked before anything is trained."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, PyTorchProfiler, SimpleProfiler
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from kd_lightning import runs
from kd_lightning.config import build
from kd_lightning.data.loader import smallest_batch
from kd_lightning.data.module import MAX_SEED
from kd_lightning.models import create_model
from kd_lightning.models.checkpoints import load_weights
from kd_lightning.training.objective import build_loss
from kd_lightning.training.tensorboard import Observer
from kd_lightning.training.train_log import Bar, Events, TrainLog
from kd_lightning.utils import hardware
from kd_lightning.utils.checks import UserError, choice, integer, number

OPTIMIZER_BOUNDS: dict[str, dict[str, float]] = {  # torch lets NaN pass, and some of these
    "lr": {"above": 0},
    "weight_decay": {"least": 0},
    "momentum": {"least": 0, "most": 1},
}
PROFILERS: dict[str, type[Profiler]] = {
    "simple": SimpleProfiler,
    "advanced": AdvancedProfiler,
    "pytorch": PyTorchProfiler,
}
ALONE = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
"""For a Trainer that is asked something and trains nothing."""


@dataclass(frozen=True)
class Parts:
    """The pieces of one run, built from its configuration."""

    data: Any
    student: nn.Module
    loss: Any
    optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
    schedule: Callable[[float, int], float]
    trainer: DictConfig
    """The `trainer` group with accelerator, devices and precision resolved for this machine."""
    compile: bool


def build_parts(cfg: DictConfig) -> Parts:
    """Builds and checks all but the teacher, cheap checks first. Raises UserError."""
    integer("seed", cfg.seed, least=0, most=MAX_SEED)
    weights = cfg.model.get("student_weights")  # a run of an older version has no such key
    trainer = resolve_trainer(cfg.trainer, least_epochs=0 if weights else 1)
    loss = build_loss(cfg.loss, cfg.model)
    data = build(cfg.data, "data")
    shares = build(trainer, "trainer", **ALONE).world_size * trainer.accumulate_grad_batches
    data.share_batch(shares)
    batch = data.batch_size * shares
    optimizer, schedule = build_optimizer(cfg.optimizer, cfg.scheduler, max(1, trainer.max_epochs), batch)
    data.prepare_data()
    data.setup()
    check_batch(loss, data, trainer)
    compile = hardware.resolve_compile(
        cfg.compile, trainer.accelerator, trainer.max_epochs * data.sizes["train"] / batch
    )
    pl.seed_everything(cfg.seed, workers=True, verbose=False)  # the same student for the same seed, whatever its loss
    student = create_model(
        cfg.model.student,
        data.num_classes,
        image_size=data.image_size,
        pretrained=cfg.model.student_pretrained,
        key="model.student",
        **cfg.model.student_kwargs,
    )
    if weights:
        load_weights(student, weights, "model.student_weights")
    return Parts(data, student.to(memory_format=torch.channels_last), loss, optimizer, schedule, trainer, compile)


def resolve_trainer(node: DictConfig, least_epochs: int = 1) -> DictConfig:
    """The `trainer` group with `auto` replaced by what this machine has. Raises UserError."""
    node = node.copy()
    integer("trainer.max_epochs", node.max_epochs, least=least_epochs)
    integer("trainer.log_every_n_steps", node.log_every_n_steps, least=1)
    integer("trainer.accumulate_grad_batches", node.accumulate_grad_batches, least=1)
    choice("trainer.profiler", node.profiler, (None, *PROFILERS))
    node.accelerator = hardware.resolve_accelerator(node.accelerator)
    node.devices = hardware.resolve_devices(node.devices, node.accelerator)
    node.precision = hardware.resolve_precision(node.precision, node.accelerator)
    if node.sync_batchnorm and node.accelerator == "cpu":
        raise UserError("trainer.sync_batchnorm=true needs a GPU: torch has none for the CPU; leave it out")
    if node.gradient_clip_val is not None:
        number("trainer.gradient_clip_val", node.gradient_clip_val, least=0)
    _try_trainer(node)
    return node


def _try_trainer(node: DictConfig) -> None:
    """Finds a value that the Trainer refuses now, not after a teacher was trained for hours. Raises UserError."""
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


def check_batch(loss: nn.Module, data: Any, trainer: DictConfig) -> None:
    """Some losses compare samples with each other (`least_batch`). Raises UserError if a batch would be too small."""
    if not getattr(loss, "needs_teacher", False):
        return
    devices: Any = trainer.devices
    processes = devices if isinstance(devices, int) else len(devices) if isinstance(devices, ListConfig) else 1
    smallest = smallest_batch(data.sizes["train"], data.batch_size, max(processes, 1))
    for module in loss.modules():
        least = getattr(module, "least_batch", 1)
        if smallest < least:
            last = "" if smallest == data.batch_size else f", of which the last of an epoch has {smallest}"
            raise UserError(
                f"data.batch_size: {type(module).__name__} compares samples with each other and needs {least} or more "
                f"in each batch, got {data.sizes['train']} images in batches of {data.batch_size}{last}"
            )


def build_optimizer(
    optimizer_node: DictConfig, schedule_node: DictConfig, max_epochs: int, batch: int
) -> tuple[Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer], Callable[[float, int], float]]:
    """Builds and tries both: a wrong learning rate is found now, not after a teacher was trained for hours.

    `batch` is the global batch, to which the learning rate is scaled if `lr_batch_size` says what it is for.
    """
    for key, bounds in OPTIMIZER_BOUNDS.items():
        if key in optimizer_node:
            number(f"optimizer.{key}", optimizer_node[key], **bounds)
    optimizer_node = _scaled(optimizer_node, batch)
    optimizer, schedule = build(optimizer_node, "optimizer"), build(schedule_node, "scheduler")
    try:
        optimizer([nn.Parameter(torch.zeros(1))])
    except (TypeError, ValueError) as e:
        values = ", ".join(f"optimizer.{k!s}={v}" for k, v in optimizer_node.items() if not str(k).startswith("_"))
        raise UserError(f"optimizer: {e}; got {values}") from e
    try:
        schedule(0.0, max_epochs)
        schedule(float(max_epochs), max_epochs)
    except UserError:
        raise
    except (TypeError, ValueError) as e:
        values = ", ".join(f"scheduler.{k!s}={v}" for k, v in schedule_node.items() if not str(k).startswith("_"))
        raise UserError(f"scheduler: {e}; got {values}") from e
    return optimizer, schedule


def _scaled(node: DictConfig, batch: int) -> DictConfig:
    """The linear scaling rule (arXiv 1706.02677, sec. 2.1): lr for `lr_batch_size` images, times batch / that."""
    scaled = OmegaConf.masked_copy(node, [str(key) for key in node if key != "lr_batch_size"])
    if node.get("lr_batch_size") is not None:
        scaled.lr = node.lr * batch / integer("optimizer.lr_batch_size", node.lr_batch_size, least=1)
    return scaled


def build_trainer(node: DictConfig, out: Path, has_val: bool) -> tuple[pl.Trainer, TrainLog]:
    """A Trainer that logs to TensorBoard and checkpoints the student to `out`. Raises UserError."""
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


def about_student(cfg: DictConfig, data: Any, student: nn.Module) -> dict[str, Any]:
    """What rebuilds the student around its weights; a loss may have put something on it (`rebuild`, as SimKD does)."""
    kwargs = OmegaConf.to_container(cfg.model.student_kwargs, resolve=True)
    rebuild: Any = getattr(student, "rebuild", {"name": cfg.model.student, "kwargs": kwargs})
    return {
        "name": rebuild["name"],
        "kwargs": rebuild["kwargs"],
        "num_classes": data.num_classes,
        "image_size": data.image_size,
        "classes": list(data.classes),
        "normalize": {"mean": list(data.normalize.mean), "std": list(data.normalize.std)},
    }
