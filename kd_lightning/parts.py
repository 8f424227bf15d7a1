"""Everything a run needs, built and checked before anything is trained."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_lightning import hardware, runs
from kd_lightning.checks import UserError, integer, number
from kd_lightning.config import build
from kd_lightning.data.module import MAX_SEED
from kd_lightning.models import create_model
from kd_lightning.objective import build_loss
from kd_lightning.progress import Bar, Events, TrainLog
from kd_lightning.teachers.weights import load_weights

OPTIMIZER_BOUNDS: dict[str, dict[str, float]] = {  # torch lets NaN pass, and some of these
    "lr": {"above": 0},
    "weight_decay": {"least": 0},
    "momentum": {"least": 0, "most": 1},
}


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


def build_parts(cfg: DictConfig) -> Parts:
    """Builds and checks all but the teacher, cheap checks first. Raises UserError."""
    integer("seed", cfg.seed, least=0, most=MAX_SEED)
    weights = cfg.model.get("student_weights")  # a run of an older version has no such key
    trainer = resolve_trainer(cfg.trainer, least_epochs=0 if weights else 1)
    loss = build_loss(cfg.loss, cfg.model)
    optimizer, schedule = build_optimizer(cfg.optimizer, cfg.scheduler, max(1, trainer.max_epochs))
    data = build(cfg.data, "data")
    data.prepare_data()
    data.setup()
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
    return Parts(data, student.to(memory_format=torch.channels_last), loss, optimizer, schedule, trainer)


def resolve_trainer(node: DictConfig, least_epochs: int = 1) -> DictConfig:
    """The `trainer` group with `auto` replaced by what this machine has. Raises UserError."""
    node = node.copy()
    integer("trainer.max_epochs", node.max_epochs, least=least_epochs)
    integer("trainer.log_every_n_steps", node.log_every_n_steps, least=1)
    integer("trainer.accumulate_grad_batches", node.accumulate_grad_batches, least=1)
    node.accelerator = hardware.resolve_accelerator(node.accelerator)
    node.devices = hardware.resolve_devices(node.devices, node.accelerator)
    node.precision = hardware.resolve_precision(node.precision, node.accelerator)
    if node.gradient_clip_val is not None:
        number("trainer.gradient_clip_val", node.gradient_clip_val, least=0)
    _try_trainer(node)
    return node


def _try_trainer(node: DictConfig) -> None:
    """Finds a value that the Trainer refuses now, not after a teacher was trained for hours. Raises UserError."""
    alone = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    try:
        build(node, "trainer", **alone)
    except UserError as e:
        plain = OmegaConf.create({"_target_": node._target_, "accelerator": node.accelerator})
        for key, value in node.items():  # it seldom says which of them it was
            try:
                build(plain, f"trainer.{key!s}={value}", **(alone | {str(key): value}))
            except UserError as refused:
                raise refused from e
        raise


def build_optimizer(
    optimizer_node: DictConfig, schedule_node: DictConfig, max_epochs: int
) -> tuple[Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer], Callable[[float, int], float]]:
    """Builds and tries both: a wrong learning rate is found now, not after a teacher was trained for hours."""
    for key, bounds in OPTIMIZER_BOUNDS.items():
        if key in optimizer_node:
            number(f"optimizer.{key}", optimizer_node[key], **bounds)
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


def build_trainer(node: DictConfig, out: Path, has_val: bool) -> tuple[pl.Trainer, TrainLog]:
    """A Trainer that logs to TensorBoard and checkpoints the student to `out`. Raises UserError."""
    log = TrainLog(node.log_every_n_steps)
    callbacks: list[pl.Callback] = [log, _checkpoint(out, runs.LAST)]
    if has_val:
        callbacks.append(_checkpoint(out, runs.BEST, monitor="val/accuracy", mode="max"))
    if node.enable_progress_bar:
        callbacks.append(Bar(log))
    trainer = build(
        node,
        "trainer",
        callbacks=callbacks,
        logger=Events(out, name="", version="", default_hp_metric=False),
        inference_mode=False,  # metrics live on from validation to fit, and tensors of inference mode may not
        num_sanity_val_steps=0,  # the teacher is measured on the whole validation split instead
        use_distributed_sampler=False,  # our loaders know their rank
    )
    return trainer, log


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
