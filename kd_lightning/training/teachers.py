"""The teachers of a run, as its configuration describes them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from kd_lightning.config import check_given
from kd_lightning.runs.students import weights_file
from kd_lightning.teachers import exported
from kd_lightning.teachers.opened import PUBLISHED, TeacherSpec
from kd_lightning.teachers.stored import NAME
from kd_lightning.training.tasks import model_of
from kd_lightning.utils.checks import UserError, of_task

PER_TEACHER = ("kwargs", "weights", "normalize", "input_size", "classes", "views")
"""Keys `model.teacher_*` that take one value for all teachers, or a list with one for each."""


def task_specs(model: DictConfig, taught: Sequence[str], tasks: Sequence[str]) -> tuple[TeacherSpec, ...]:
    """Return a description of the teachers of each task.

    Args:
        model: The group.
        taught: The tasks that need a teacher; `""` is the only task of ordinary data.
        tasks: All tasks.

    Raises:
        UserError: As `teacher_specs`, or if a task has none.
    """
    specs: list[TeacherSpec] = []
    for task in taught:
        own = model_of(model, task, tasks)
        with of_task(task):
            if task and own.teacher is None:
                raise UserError(
                    "model.teacher has none for this task, but its loss needs a teacher; name one, or give the task CE "
                    "in loss.methods"
                )
            specs += [replace(spec, task=task) for spec in teacher_specs(own)]
    return tuple(specs)


def teacher_specs(model: DictConfig) -> tuple[TeacherSpec, ...]:
    """Return a description of each teacher of the group `model`, of one task.

    Raises:
        UserError: If no teacher is named, a list has not one value for each teacher, or weights are not there.
    """
    check_given(model, "model")
    several = isinstance(model.teacher, ListConfig)
    names = list(model.teacher) if isinstance(model.teacher, ListConfig) else [model.teacher]
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"model.teacher must be the name of a model or a list of them, got {model.teacher!r}; "
            "only loss=ce needs none"
        )
    values = {
        key: _each(f"model.teacher_{key}", model.get(f"teacher_{key}"), len(names), several) for key in PER_TEACHER
    }
    specs = []
    for k, name in enumerate(names):
        suffix = f"[{k}]" if several else ""
        own = {key: value[k] for key, value in values.items()}
        if own["weights"] is None:
            raise UserError(
                f"model.teacher_weights{suffix}: null names no weights; give a checkpoint file, a run directory, "
                "'auto' or 'imagenet'"
            )
        weights = str(own["weights"])
        if weights not in ("auto", "imagenet", PUBLISHED):
            weights = str(weights_file(weights, f"model.teacher_weights{suffix}"))
        if Path(weights).suffix in exported.SUFFIXES:
            name = exported.NAME
        if Path(weights).suffix == ".npz" and name != NAME:
            raise UserError(f"model.teacher_weights{suffix}: {weights} holds stored answers; say model.teacher={NAME}")
        classes = own["classes"]
        if classes is not None and not isinstance(classes, dict):
            classes = tuple(str(c) for c in classes)
        views = own["views"] if name == NAME else None
        specs.append(
            TeacherSpec(
                name, own["kwargs"] or {}, weights, own["normalize"], own["input_size"], classes, views, suffix=suffix
            )
        )
    if model.get("teacher_views") is not None and NAME not in names:
        raise UserError(
            f"model.teacher_views={model.teacher_views} is for stored answers; model.teacher={model.teacher} sees the "
            "same views as the student"
        )
    return tuple(specs)


def _each(key: str, value: Any, count: int, several: bool) -> list[Any]:
    """Return the value of each teacher: one of a list, or the same for all."""
    plain: Any = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
    is_list = several and isinstance(plain, list)
    if key.endswith("classes"):  # the value of one teacher is a list itself
        is_list = is_list and bool(plain) and isinstance(plain[0], list | dict)
    if not is_list:
        return [plain] * count
    if len(plain) != count:
        raise UserError(f"{key} has {len(plain)} values for {count} teachers; give one for each, or one for all")
    return list(plain)
