"""The configuration of one task of several: what is typed by task becomes that of an ordinary training."""

from collections.abc import Collection, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from kd_lightning.config import ModelConfig
from kd_lightning.utils.checks import UserError, did_you_mean

TASKS = "kd_lightning.losses.Tasks"
BY_TASK = (
    *("teacher", "teacher_kwargs", "teacher_weights", "teacher_normalize", "teacher_input_size", "teacher_classes"),
    *("teacher_views", "teacher_weighting"),
)
"""Keys of the group `model` that take one value for all tasks, or a dictionary by task."""


def model_of(model: DictConfig, task: str, tasks: Collection[str]) -> DictConfig:
    """Return the group `model` with the teacher of one task alone.

    A task that is missing in a dictionary has no teacher, and the default of any other key.

    Args:
        model: The group.
        task: The task; `""` is the only one of ordinary data, and leaves the group as it is.
        tasks: Names of all tasks.

    Raises:
        UserError: If a dictionary names a task that there is not.
    """
    if not task:
        return model
    model, plain = model.copy(), vars(ModelConfig())
    with open_dict(model):
        for key in BY_TASK:
            value = OmegaConf.to_container(model[key], resolve=True) if OmegaConf.is_config(model[key]) else model[key]
            if isinstance(value, dict) and (key == "teacher" or set(value) & set(tasks)):
                check_tasks(f"model.{key}", value, tasks)
                model[key] = value.get(task, None if key == "teacher" else plain[key])
    return model


def check_tasks(key: str, by_task: Mapping[Any, Any], tasks: Collection[str]) -> None:
    """Raise UserError if a dictionary by task names a task that there is not."""
    for task in by_task:
        if task not in tasks:
            known = ", ".join(tasks)
            raise UserError(f"{key} names the task {task!r}, but the data has {known}{did_you_mean(task, tasks)}")


def one_task(cfg: DictConfig) -> DictConfig:
    """Return the configuration with the teacher and the method of the task that `data.task` chose, if it chose one.

    So `data.task=kind` is the ordinary training that a student of several tasks is compared with.

    Raises:
        UserError: If a dictionary names a task that there is not.
    """
    task, tasks = cfg.data.get("task"), cfg.data.get("tasks")
    if not task or not isinstance(tasks, DictConfig):
        return cfg
    cfg = cfg.copy()
    with open_dict(cfg):
        cfg.model = model_of(cfg.model, str(task), [str(name) for name in tasks])
        methods = cfg.loss.get("methods")
        if cfg.loss.get("_target_") == TASKS and isinstance(methods, DictConfig) and task in methods:
            shared = {key: cfg.loss[key] for key in ("label_smoothing", "fusion") if key in cfg.loss}
            cfg.loss = OmegaConf.merge(shared, methods[task])
        cfg.loss.pop("weights", None)
    return cfg
