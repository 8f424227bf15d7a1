"""The teacher of a run that is over: found again, never trained."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_lightning import runs
from kd_lightning.checks import UserError
from kd_lightning.config import ModelConfig
from kd_lightning.teachers.live import Teacher
from kd_lightning.teachers.source import build_teacher, single_teachers
from kd_lightning.teachers.stage import stage_config, teacher_folder


def find_teacher(cfg: DictConfig, data: Any) -> Teacher:
    """The teacher of a run with the configuration `cfg`; `data` is what the run was trained on.

    Raises UserError if its weights are where they were no longer.
    """
    cfg = cfg.copy()
    # A run of an older version lacks newer keys.
    cfg.model = OmegaConf.unsafe_merge(OmegaConf.create(vars(ModelConfig())), cfg.model)
    cfg.model.teacher_cache = "off"
    cfg.model.teacher_weights = found_weights(cfg, data)
    return build_teacher(cfg, data, cfg.trainer, lambda model: (), _never)()


def found_weights(cfg: DictConfig, data: Any) -> str | list[str]:
    """The files or folders that hold the weights of the teacher or teachers. Raises UserError if one is gone."""
    weights = [_weights(one, data) for one, _ in single_teachers(cfg)]
    return weights if len(weights) > 1 else weights[0]


def _weights(cfg: DictConfig, data: Any) -> str:
    """The file or folder that holds the weights of one teacher."""
    if cfg.model.teacher_weights not in ("auto", "imagenet"):
        return str(cfg.model.teacher_weights)
    folder = teacher_folder(cfg, stage_config(cfg), data)
    if not runs.is_finished(folder):
        raise UserError(f"model.teacher_weights: {folder} is gone; name them with model.teacher_weights=PATH")
    return str(folder)


def _never(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("the weights are given by path")
