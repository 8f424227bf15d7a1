"""How a student that was made smaller is trained on: the run's own configuration, shorter and gentler."""

from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from kd_lightning.config import CONF_DIR, ModelConfig
from kd_lightning.deploy.source import Source
from kd_lightning.evaluation.found import found_weights
from kd_lightning.runs.directory import flatten
from kd_lightning.utils.checks import UserError, choice, did_you_mean

PART = 10  # of the run's epochs, one in so many
LR = {"prune": 0.1, "int8": 0.01}
"""Times the run's learning rate."""
CLIP = 1.0
"""Norm of a gradient through the rounding: no BatchNorm is left that would follow a large step."""
TEACHERS = ("teacher", "student")


def training_config(source: Source, step: str, distill: str | None, train: bool, words: list[str]) -> DictConfig:
    """The configuration of the training after `step` ("prune" or "int8"); what was typed (`key=value`) has the last
    word. `distill` says who teaches: the run's own "teacher", or its "student" as it is; None: the labels alone.

    Without `train` the student is only measured. Raises UserError.
    """
    config = source.run.config.copy()
    config.model = OmegaConf.unsafe_merge(OmegaConf.create(vars(ModelConfig())), config.model)
    config.resume = None
    config.trainer.devices, config.trainer.num_nodes = 1, 1  # a second process would make the student smaller again
    first = first_training(source)
    config.trainer.max_epochs = -(-max(1, first["epochs"]) // PART) if train else 0
    if first["lr"] is not None:
        config.optimizer.lr = LR[step] * first["lr"]
    if step == "int8" and config.trainer.gradient_clip_val is None:
        config.trainer.gradient_clip_val = CLIP
    config.scheduler = _preset("scheduler", "cosine")
    if distill is None:
        config.loss = _preset("loss", "ce")
    else:
        _set_teacher(config, source, distill)
    return _typed(config, words)


def first_training(source: Source) -> dict[str, Any]:
    """Epochs and learning rate of the training before all compression."""
    config = source.run.config
    own = {"epochs": config.trainer.max_epochs, "lr": config.optimizer.get("lr")}
    return dict(source.run.metrics.get("compression", {}).get("first", own))


def default_teacher(source: Source) -> str:
    """Who teaches if nothing was said: the run's teacher, if it had one."""
    return "teacher" if "teacher" in source.run.metrics or _names_weights(source.config) else "student"


def _names_weights(config: DictConfig) -> bool:
    """Whether the run's configuration tells of a teacher that needs no training."""
    weights = config.model.get("teacher_weights")
    return config.model.get("teacher") is not None and weights not in (None, "auto", "imagenet")


def _set_teacher(config: DictConfig, source: Source, distill: str) -> None:
    if not source.run.metrics.get("teacher") or source.about["name"] != config.model.student:
        config.loss = _preset("loss", "kd")  # a loss without teacher, or one that put layers on the student
    if choice("--distill", distill, TEACHERS) == "teacher":
        config.model.teacher_weights = found_weights(source.run, source.config, source.data)
        return
    plain = vars(ModelConfig())
    for key in plain:
        if key.startswith("teacher_"):
            config.model[key] = plain[key]
    config.model.teacher, config.model.teacher_kwargs = source.about["name"], source.about["kwargs"]
    config.model.teacher_weights = str(source.path)


def _preset(group: str, name: str) -> DictConfig:
    known = sorted(p.stem for p in (CONF_DIR / group).glob("*.yaml"))
    node = OmegaConf.load(CONF_DIR / group / f"{choice(group, name, known)}.yaml")
    assert isinstance(node, DictConfig)
    return node


def _typed(config: DictConfig, words: list[str]) -> DictConfig:
    """With `key=value` and, for loss, optimizer and scheduler, `group=name` as typed."""
    for word in sorted(words, key=lambda word: "." in word.partition("=")[0]):  # a group before its keys
        key, _, value = word.partition("=")
        if key in ("loss", "optimizer", "scheduler"):
            config[key] = _preset(key, value)
            continue
        known = flatten(config)
        if not any(k == key or k.startswith(f"{key}.") for k in known):
            raise UserError(f"unknown key {key!r}{did_you_mean(key, known)}")
        if key.startswith("model.student"):
            raise UserError(f"{word}: the student is the one of the run, made smaller")
        config.merge_with_dotlist([word])
    return config


def describe_step(path: Path, config: DictConfig) -> str:
    """One line on what comes."""
    epochs = config.trainer.max_epochs
    loss = hydra.utils.get_class(config.loss._target_).__name__
    how = (
        f"trained for {epochs} epochs ({loss}, lr {config.optimizer.get('lr'):g})"
        if epochs
        else "measured, not trained"
    )
    return f"{path}: {how}"


def student_node(kind: str, about: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Keys of `model` for the student `about`, inside `kd_lightning.deploy.<kind>`."""
    inside = {"of": about["name"], "size": about["image_size"], "kwargs": about["kwargs"]}
    return {"student": f"kd_lightning.deploy.{kind}", "student_kwargs": inside | more, "student_pretrained": False}
