"""The teacher that a run needs: reuse the one trained before for this data, model and recipe, else train it now."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf, open_dict

from kd_lightning import runs
from kd_lightning.config import ModelConfig
from kd_lightning.data.module import MAX_SEED
from kd_lightning.models import create_model
from kd_lightning.training.build import build_optimizer
from kd_lightning.utils.checks import UserError, integer
from kd_lightning.utils.console import say
from kd_lightning.utils.distributed import is_first_rank

# The keys of `trainer` that decide how much, and on what batches, a teacher learns.
_BUDGET = (
    *("max_epochs", "max_steps", "max_time", "limit_train_batches", "devices", "num_nodes"),
    *("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "sync_batchnorm"),
)


def trained_teacher(cfg: DictConfig, data: Any, train: Callable[..., Any]) -> Path:
    """The run directory of the teacher that `cfg` asks for; `train(config, folder, resume)` makes it if there is none.

    Safe against two processes (one trains, the other waits) and against interruption (it goes on where it stopped).
    """
    config = stage_config(cfg)
    path = teacher_folder(cfg, config, data)
    if not is_first_rank():  # the other ranks of a training come here while the first holds the lock
        if not runs.is_finished(path):
            train(config, path, resume=(path / runs.LAST).is_file())
        return path
    with _alone(FileLock(f"{path}.lock"), f"another process is training the teacher in {path}; waiting for it"):
        if runs.is_finished(path):
            say(f"teacher: {cfg.model.teacher}, trained before, from {path}")
        else:
            resume = (path / runs.CONFIG).is_file()
            say(
                f"teacher: {cfg.model.teacher} is {'going on' if resume else 'trained first, once'}, for "
                f"{config.trainer.max_epochs} epochs, and kept in {path}\n"
                "         (shorter: teacher_stage.max_epochs=…; your own weights: model.teacher_weights=PATH)"
            )
            train(config, path, resume=resume)
    return path


def check_stage(cfg: DictConfig, data: Any) -> None:
    """Finds now what the stage would stumble over. Raises UserError with the keys as typed."""
    stage = cfg.teacher_stage
    integer("teacher_stage.seed", stage.seed, least=0, most=MAX_SEED)
    integer("teacher_stage.max_epochs", stage.max_epochs, least=1)
    try:
        build_optimizer(stage.optimizer, stage.scheduler, stage.max_epochs, data.batch_size)
    except UserError as e:
        raise UserError(f"teacher_stage.{e}") from e
    try:
        Path(stage.dir).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(f"teacher_stage.dir: cannot write to {stage.dir}: {e.strerror}; choose another folder") from e
    if cfg.model.teacher_weights == "imagenet" and not runs.is_finished(teacher_folder(cfg, stage_config(cfg), data)):
        kwargs, key = cfg.model.teacher_kwargs, "model.teacher_weights=imagenet"
        create_model(
            cfg.model.teacher, data.num_classes, image_size=data.image_size, pretrained=True, key=key, **kwargs
        )


def stage_config(cfg: DictConfig) -> DictConfig:
    """The configuration of an ordinary training whose student is the teacher of `cfg`."""
    config = cfg.copy()
    stage = cfg.teacher_stage
    with open_dict(config):
        config.seed, config.resume = stage.seed, None
        config.optimizer, config.scheduler = stage.optimizer, stage.scheduler
        config.trainer.max_epochs = stage.max_epochs
        config.loss = {"_target_": "kd_lightning.losses.CE", "ce_weight": 1.0}
        config.model = ModelConfig(
            student=cfg.model.teacher,
            student_kwargs=cfg.model.teacher_kwargs,
            student_pretrained=cfg.model.teacher_weights == "imagenet",
            teacher=None,
        )
    return config


def teacher_folder(cfg: DictConfig, config: DictConfig, data: Any) -> Path:
    return Path(cfg.teacher_stage.dir) / f"{data.name}-{slug(cfg.model.teacher)}-{_recipe_id(config, data)}"


def _recipe_id(config: DictConfig, data: Any) -> str:
    """8 hex digits of what decides which function the teacher learns; machine and speed settings do not."""
    keys = ["model", "optimizer", "scheduler", "seed"]
    decisive: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, keys), resolve=True)
    decisive["model"].pop("student_weights")  # a teacher's stage never has any
    recipe: list[Any] = [decisive]
    recipe += [data.fingerprint(), data.batch_size, *(str(config.trainer[key]) for key in _BUDGET)]
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]


def _alone(lock: FileLock, waiting: str) -> Any:
    """Holds the lock; says `waiting` if another does. The first try is the test, or two would miss each other."""
    try:
        return lock.acquire(timeout=0)
    except TimeoutError:
        say(waiting)
        return lock.acquire()


def slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "_-" else "-" for c in name)
