"""Optimizer and learning-rate schedule of a run."""

import inspect
from collections.abc import Callable, Iterable
from functools import partial

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_lightning.config import build
from kd_lightning.utils.checks import UserError, choice, integer, number

OPTIMIZER_BOUNDS: dict[str, dict[str, float]] = {  # torch lets NaN pass, and some of these
    "lr": {"gt": 0},
    "weight_decay": {"ge": 0},
    "momentum": {"ge": 0, "le": 1},
}


def build_optimizer(
    optimizer_node: DictConfig, schedule_node: DictConfig, max_epochs: int, batch: int, fused: bool = False
) -> tuple[Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer], Callable[[float, int], float]]:
    """Build and try both, so that a wrong learning rate is found before a teacher is trained for hours.

    Args:
        optimizer_node: The group `optimizer`.
        schedule_node: The group `scheduler`.
        max_epochs: Epochs that will be trained.
        batch: The global batch; the learning rate is scaled to it if `lr_batch_size` is given.
        fused: Let an optimizer that can update all parameters in one kernel do so.

    Raises:
        UserError: If one of them refuses a value.
    """
    for group, node in (("optimizer", optimizer_node), ("scheduler", schedule_node)):
        if not isinstance(node, DictConfig):  # of the teacher's stage they are no groups, so a name chooses nothing
            raise UserError(f"{group} must be a mapping with _target_, got {node!r}")
    for key, bounds in OPTIMIZER_BOUNDS.items():
        if key in optimizer_node:
            number(f"optimizer.{key}", optimizer_node[key], **bounds)
    for key in {"nesterov", "amsgrad", "maximize"} & {str(key) for key in optimizer_node}:
        choice(f"optimizer.{key}", optimizer_node[key], (True, False))  # torch takes any text for true
    optimizer_node = _scaled(optimizer_node, batch)
    if fused and "fused" not in optimizer_node and _has_fused(optimizer_node):
        optimizer_node = OmegaConf.merge(optimizer_node, {"fused": True})  # type: ignore[assignment]
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


def can_fuse(trainer: DictConfig) -> bool:
    """Return whether a fused optimizer suits a resolved `trainer` group: a GPU, and gradients that can be clipped.

    In 16-mixed a fused optimizer takes the scale off the gradients itself, too late for clipping.
    """
    return trainer.accelerator == "gpu" and not (trainer.precision == "16-mixed" and trainer.gradient_clip_val)


def _has_fused(node: DictConfig) -> bool:
    """Return whether the optimizer has a fused form. Raises UserError if there is no such optimizer."""
    made = build(node, "optimizer")
    return "fused" in inspect.signature(made.func if isinstance(made, partial) else made).parameters


def _scaled(node: DictConfig, batch: int) -> DictConfig:
    """Apply the linear scaling rule (arXiv 1706.02677, sec. 2.1): multiply lr by batch / lr_batch_size."""
    scaled = OmegaConf.masked_copy(node, [str(key) for key in node if key != "lr_batch_size"])
    if node.get("lr_batch_size") is not None:
        scaled.lr = node.lr * batch / integer("optimizer.lr_batch_size", node.lr_batch_size, ge=1)
    return scaled
