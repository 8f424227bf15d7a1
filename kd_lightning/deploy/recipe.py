"""Training of a student that was made smaller: the run's own configuration, shorter and gentler."""

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from kd_lightning.config import ModelConfig, apply_overrides, load_option
from kd_lightning.evaluation.found import found_weights
from kd_lightning.evaluation.opened import OpenedRun
from kd_lightning.training.named_by_teacher import check_labels_file
from kd_lightning.types import StudentCard
from kd_lightning.utils.checks import choice

PART = 10  # of the run's epochs, one in so many
LR = {"prune": 0.1, "int8": 0.01}
"""Times the run's learning rate."""
CLIP = 1.0
"""Norm of a gradient through the rounding: no BatchNorm is left that would follow a large step."""
TEACHERS = ("teacher", "student")
CHANGEABLE = ("data.", "model.teacher", "loss.", "optimizer.", "scheduler.", "trainer.", "seed", "select", "compile")
GROUPS = ("loss", "optimizer", "scheduler")


def training_config(
    run: OpenedRun, step: str, distill: str | None, train: bool, overrides: list[str] | None
) -> DictConfig:
    """Return the configuration of the training after a step.

    Args:
        run: The run whose student was made smaller.
        step: `prune` or `int8`.
        distill: Who teaches: the run's own `teacher`, or its `student` as it is; None for the labels alone, or for the
            teacher if there are none.
        train: Whether the student is trained, or only measured.
        overrides: `key=value` as typed, which have the last word; also `group=option` of `GROUPS`.

    Raises:
        UserError: If an override is wrong, or the teacher is gone.
    """
    check_labels_file(run.config)  # a new one would be named by the student itself
    config = run.run.config.copy()
    config.resume = None
    config.trainer.devices, config.trainer.num_nodes = 1, 1  # a second process would make the student smaller again
    first = first_training(run)
    config.trainer.max_epochs = -(-max(1, first["epochs"]) // PART) if train else 0
    config.trainer.keep_epochs = []
    if first["lr"] is not None:
        config.optimizer.lr = LR[step] * first["lr"]
    if step == "int8" and config.trainer.gradient_clip_val is None:
        config.trainer.gradient_clip_val = CLIP
    config.scheduler = load_option("scheduler", "cosine")
    if distill is None and run.run.metrics.get("labels") == 0:
        distill = "teacher"  # without labels nobody else can teach
    if distill is None:
        config.loss = load_option("loss", "ce")
    else:
        _set_teacher(config, run, distill)
    refusal = f"{{}} cannot be changed: the student is the run's, made smaller; what can: {', '.join(CHANGEABLE)}"
    return apply_overrides(config, overrides or [], allowed=CHANGEABLE, groups=GROUPS, refusal=refusal)


def first_training(run: OpenedRun) -> dict[str, Any]:
    """Return epochs and learning rate of the training before all compression."""
    config = run.run.config
    own = {"epochs": config.trainer.max_epochs, "lr": config.optimizer.get("lr")}
    return dict(run.run.metrics.get("compression", {}).get("first", own))


def default_teacher(run: OpenedRun) -> str:
    """Return who teaches if nothing was said: the run's teacher, if it had one."""
    return "teacher" if run.has_teacher or _names_weights(run.config) else "student"


def _names_weights(config: DictConfig) -> bool:
    """Return whether the configuration names a teacher that needs no training."""
    weights = config.model.get("teacher_weights")
    return config.model.get("teacher") is not None and weights not in (None, "auto", "imagenet")


def _set_teacher(config: DictConfig, run: OpenedRun, distill: str) -> None:
    taught = run.has_teacher or "stored_teacher" in run.run.metrics
    if not taught or run.card.name != config.model.student:
        config.loss = load_option("loss", "kd")  # a loss without teacher, or one that put layers on the student
    if choice("--distill", distill, TEACHERS) == "teacher":
        found = [path for _, path in found_weights(run.run, run.config, run.data)]
        weights = [os.path.relpath(path.resolve()) for path in found]  # the same for the runs of all seeds
        config.model.teacher_weights = weights if len(weights) > 1 else weights[0]
        return
    plain = vars(ModelConfig())
    for key in plain:
        if key.startswith("teacher_"):
            config.model[key] = plain[key]
    config.model.teacher, config.model.teacher_kwargs = run.card.name, dict(run.card.kwargs)
    config.model.teacher_weights = str(run.path)


def describe_step(path: Path, config: DictConfig) -> str:
    """Return one line on what comes."""
    epochs = config.trainer.max_epochs
    if not epochs:
        return f"{path}: measured, not trained"
    loss = config.loss._target_.rpartition(".")[2]  # not imported: it may be a stranger's
    lr = config.optimizer.get("lr")
    how = loss if lr is None else f"{loss}, lr {lr:g}"
    return f"{path}: will be trained for {epochs} epoch{'s' * (epochs != 1)} ({how})"


def student_node(kind: str, card: StudentCard, **more: Any) -> dict[str, Any]:
    """Return the keys of `model` for the student of `card` inside `kd_lightning.deploy.<kind>`."""
    inside = {"of": card.name, "kwargs": dict(card.kwargs)}
    return {"student": f"kd_lightning.deploy.{kind}", "student_kwargs": inside | more, "student_pretrained": False}
