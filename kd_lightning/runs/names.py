"""Short names of networks: `int8(pruned(resnet20))`, `resnet50 + wrn_40_2`."""

import hashlib
import json
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

HERE = "kd_lightning.deploy."


def student_name(name: str, kwargs: Any) -> str:
    """Return the short name of a model that `create_model(name, …)` makes; most keep their name."""
    if not name.startswith(HERE) or "of" not in kwargs:
        return name
    return f"{name.removeprefix(HERE)}({student_name(kwargs['of'], kwargs.get('kwargs') or {})})"


def teacher_name(config: DictConfig) -> str:
    """Return `resnet50`, or `resnet50 + wrn_40_2` for several teachers."""
    teacher = config.model.teacher
    return " + ".join(teacher) if isinstance(teacher, ListConfig) else str(teacher)


def with_student_name(config: DictConfig) -> DictConfig:
    """Return a run's configuration in which such a student is one word, which tells different shapes apart."""
    if not config.model.student.startswith(HERE):
        return config
    config = config.copy()
    kwargs: Any = OmegaConf.to_container(config.model.student_kwargs)
    name = student_name(config.model.student, kwargs)
    if "pruned(" in name:
        name += f"#{hashlib.sha256(json.dumps(kwargs, sort_keys=True).encode()).hexdigest()[:4]}"
    with open_dict(config):
        config.model.student, config.model.student_kwargs, config.model.student_weights = name, {}, None
    return config
