"""The teacher stage: reuse the teacher trained before for this data, network and recipe, else train it now."""

import errno
import hashlib
import json
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf, open_dict

from kd_lightning import runs
from kd_lightning.config import ModelConfig
from kd_lightning.data.module import MAX_SEED, DataModule
from kd_lightning.models import create_model
from kd_lightning.teachers.opened import TeacherSpec
from kd_lightning.training.optimizer import build_optimizer
from kd_lightning.utils.checks import UserError, integer, number
from kd_lightning.utils.console import say
from kd_lightning.utils.distributed import tell
from kd_lightning.utils.hub import content
from kd_lightning.utils.names import slug

_BUDGET = (
    *("max_epochs", "max_steps", "max_time", "limit_train_batches", "devices", "num_nodes"),
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "sync_batchnorm"),
)
"""Keys of `trainer` that decide how much, and on what batches, a teacher learns."""


def trained_teacher(cfg: DictConfig, spec: TeacherSpec, data: DataModule, train: Callable[..., Any]) -> Path:
    """Return the run directory of the teacher `spec`; `train(config, folder, resume)` makes it if there is none.

    The first rank waits, decides and tells the others, so that all train the same network. Safe against two processes
    (one trains, the other waits) and against interruption (it goes on where it stopped).
    """
    config = stage_config(cfg, spec, data)
    path = teacher_folder(cfg, spec, data)
    with ExitStack() as locked:
        state = tell(f"teacher {path}", lambda: _state(path, spec, config, locked))
        if state == "finished":
            return path
        train(config, path, resume=state == "begun")
    return path


def _state(path: Path, spec: TeacherSpec, config: DictConfig, locked: ExitStack) -> str:
    """Return whether the teacher is "finished", "begun" or "new"; the last two under a lock that `locked` holds."""
    waiting = f"another process is training the teacher in {path}; waiting for it"
    try:
        locked.enter_context(_alone(FileLock(f"{path}.lock"), waiting))
    except OSError as e:
        if runs.is_finished(path):  # a folder that others fill, and we may only read
            return "finished"
        raise UserError(f"teacher_stage.dir: cannot write to {path.parent}: {e.strerror}; choose another folder") from e
    if runs.is_finished(path):
        say(f"teacher: {spec.name}, trained before, from {path}", detail=True)
        locked.close()
        return "finished"
    begun = (path / runs.CONFIG).is_file()
    who = f"{spec.name} for {spec.task}" if spec.task else spec.name
    epochs = config.trainer.max_epochs
    say(
        f"teacher: {who} is {'going on' if begun else 'trained first, once'}, for "
        f"{epochs} epoch{'s' * (epochs != 1)}, and kept in {path}\n"
        "         (shorter: teacher_stage.max_epochs=…; your own weights: model.teacher_weights=PATH)"
    )
    return "begun" if begun else "new"


def check_stage(cfg: DictConfig, spec: TeacherSpec, data: DataModule) -> None:
    """Find what the stage would stumble over before anything is trained. Raises UserError with the keys as typed."""
    stage = cfg.teacher_stage
    integer("teacher_stage.seed", stage.seed, ge=0, le=MAX_SEED)
    integer("teacher_stage.max_epochs", stage.max_epochs, ge=1)
    number("teacher_stage.label_smoothing", _smoothing(cfg), ge=0, le=1)
    try:
        build_optimizer(stage.optimizer, stage.scheduler, stage.max_epochs, data.batch_size)
    except UserError as e:
        raise UserError(f"teacher_stage.{e}") from e
    finished = runs.is_finished(teacher_folder(cfg, spec, data))
    try:
        Path(stage.dir).mkdir(parents=True, exist_ok=True)
        if not finished and not os.access(stage.dir, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as e:
        raise UserError(f"teacher_stage.dir: cannot write to {stage.dir}: {e.strerror}; choose another folder") from e
    if spec.starts_pretrained and not finished:
        key = f"model.teacher{spec.suffix}, model.teacher_weights={spec.weights}"
        _, facts = data.of(spec.task).teacher_inputs(None, None, spec.suffix, spec.name)
        create_model(spec.name, kwargs=spec.kwargs, pretrained=True, key=key, **facts)


def stage_config(cfg: DictConfig, spec: TeacherSpec, data: DataModule) -> DictConfig:
    """Return the configuration of an ordinary training whose student is the teacher `spec`."""
    config = cfg.copy()
    stage = cfg.teacher_stage
    with open_dict(config):
        config.seed, config.resume, config.select = stage.seed, None, "best"
        # not the student's, which a resumed run has as a number
        config.data.seed = stage.seed
        if "view_seed" in config.data:
            config.data.view_seed = None
        config.data.update(data.keys_for(spec.name))
        config.optimizer, config.scheduler = stage.optimizer, stage.scheduler
        if spec.task:
            config.data.task = spec.task
        config.callbacks = {}  # the user's are for the student; a teacher is told by its recipe alone
        config.trainer.max_epochs, config.trainer.keep_epochs = stage.max_epochs, kept_epochs(stage.max_epochs)
        config.loss = {
            "_target_": "kd_lightning.losses.CE",
            "ce_weight": 1.0,
            "label_smoothing": _smoothing(cfg),
        }
        config.model = ModelConfig(
            student=spec.name,
            student_kwargs=dict(spec.kwargs),
            student_pretrained=spec.starts_pretrained,
            teacher=None,
        )
    return config


def kept_epochs(epochs: int) -> list[int]:
    """Return the epochs of a teacher that stay: at 25, 50 and 75 % of its training, for teachers that stopped early."""
    return sorted({part * epochs // 4 for part in (1, 2, 3)} - {0})


def teacher_folder(cfg: DictConfig, spec: TeacherSpec, data: DataModule) -> Path:
    """Return the run directory in which this teacher is, or will be."""
    data = data.of(spec.task)
    return Path(cfg.teacher_stage.dir) / f"{data.name}-{slug(spec.name)}-{_recipe_id(cfg, spec, data)}"


def _recipe_id(cfg: DictConfig, spec: TeacherSpec, data: DataModule) -> str:
    """Return 8 hex digits of what decides which function the teacher learns; machine and speed settings do not.

    What counts is named here one by one, so that a key added elsewhere changes no identity.
    """
    stage: Any = OmegaConf.to_container(
        OmegaConf.masked_copy(cfg.teacher_stage, ["seed", "optimizer", "scheduler"]), resolve=True
    )
    recipe = {
        "network": [content(spec.name), dict(spec.kwargs), spec.starts_pretrained],
        "stage": stage,
        "data": [data.identity_for(spec.name), data.label_identity(), data.batch_size],
        "budget": {key: str(cfg.trainer.get(key)) for key in _BUDGET} | {"max_epochs": cfg.teacher_stage.max_epochs},
    }
    if smoothing := _smoothing(cfg):  # a teacher kept before there was this key has its folder still
        recipe["label_smoothing"] = smoothing
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]


def _smoothing(cfg: DictConfig) -> Any:
    return cfg.teacher_stage.get("label_smoothing", 0.0)  # an older run, which goes on, has no such key


def _alone(lock: FileLock, waiting: str) -> Any:
    """Hold the lock; say `waiting` if another process does. The first try is the test, or two would miss each other."""
    try:
        return lock.acquire(timeout=0)
    except TimeoutError:
        say(waiting)
        return lock.acquire()
