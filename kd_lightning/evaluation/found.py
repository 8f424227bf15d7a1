"""The teacher of a run that is over: found again, never trained."""

import os
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kd_lightning import runs
from kd_lightning.config import ModelConfig
from kd_lightning.teachers.build import build_teacher, single_teachers
from kd_lightning.teachers.live import Teacher
from kd_lightning.training.teacher_stage import stage_config, teacher_folder
from kd_lightning.utils.checks import UserError

_PLACES = ("model.teacher_weights", "teacher_stage.dir")


def find_teacher(run: runs.Run, cfg: DictConfig, data: Any) -> Teacher:
    """The teacher of `run`, with `cfg`, its configuration as it may have been changed; it was trained on `data`.

    Its weights lie where the run found them, unless `cfg` names another place. Raises UserError if they do no longer.
    """
    cfg = cfg.copy()
    # A run of an older version lacks newer keys.
    cfg.model = OmegaConf.unsafe_merge(OmegaConf.create(vars(ModelConfig())), cfg.model)
    cfg.model.teacher_cache = "off"
    cfg.model.teacher_weights = found_weights(run, cfg, data)
    return build_teacher(cfg, data, cfg.trainer, lambda model: (), _never)()


def found_weights(run: runs.Run, cfg: DictConfig, data: Any) -> str | list[str]:
    """The files or folders that hold the weights of the teacher or teachers; see `find_teacher`."""
    moved = any(OmegaConf.select(cfg, key) != OmegaConf.select(run.config, key) for key in _PLACES)
    seen = [] if moved else _where_the_run_saw_them(run)
    weights = [str(path) for path in (seen or [_weights(one, data) for one, _ in single_teachers(cfg)])]
    return weights if len(weights) > 1 else weights[0]


def weights_seen_from(out: Path, cfg: DictConfig, data: Any) -> list[dict[str, str]]:
    """Where each teacher's weights lie: seen from the run directory `out`, as both may move, and absolute."""
    paths = [_weights(one, data) for one, _ in single_teachers(cfg)]
    return [{"relative": os.path.relpath(path, out), "absolute": str(path.resolve())} for path in paths]


def _where_the_run_saw_them(run: runs.Run) -> list[Path]:
    """What `weights_seen_from` told the run; nothing if one is gone, or the run of an older version."""
    found = []
    for path in run.metrics.get("teacher", {}).get("weights", []):
        there = [p for p in (run.path / path["relative"], Path(path["absolute"])) if p.exists()]
        if not there:
            return []
        found.append(there[0])
    return found


def _weights(cfg: DictConfig, data: Any) -> Path:
    """The file or folder that holds the weights of one teacher."""
    if cfg.model.teacher_weights not in ("auto", "imagenet"):
        return Path(cfg.model.teacher_weights).expanduser()
    folder = teacher_folder(cfg, stage_config(cfg), data)
    if not runs.is_finished(folder):
        raise UserError(f"model.teacher_weights: {folder} is gone; name them with model.teacher_weights=PATH")
    return folder


def _never(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("the weights are given by path")
