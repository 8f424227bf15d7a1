"""Names: of networks (`int8(pruned(resnet20))`), of new run directories, of paths as a command line takes them."""

import hashlib
import json
import re
import secrets
import shlex
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from kd_lightning.utils.distributed import is_started_by_launcher, tell
from kd_lightning.utils.names import slug

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


def override(key: str, value: Any) -> str:
    """Return `key=value` as Hydra's grammar reads it back, quoted if it must be."""
    text = str(value)
    if re.fullmatch(r"[\w./:@%+-]+", text, re.ASCII):
        return f"{key}={text}"
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), text)
    return f"{key}='{escaped}'"


def resume_word(path: Path) -> str:
    """Return the override that goes on with the run in `path`, as a shell takes it."""
    return shlex.quote(override("resume", path))


_stamp: list[str] = []


def new_stamp() -> str:
    """Return date, time and 8 random digits, the same on all ranks and whenever this process asks."""
    if not _stamp:
        time_of_day = time.strftime("%Y-%m-%d_%H-%M-%S")
        make = f"{time_of_day}_{secrets.token_hex(4)}"
        _stamp.append(tell("stamp", lambda: make) if is_started_by_launcher() else make)
    return _stamp[0]


def forget_stamp() -> None:
    """Let the next command of this process have a new one."""
    _stamp.clear()


def run_name(data: Any, student: Any, loss: Any, seed: Any) -> str:
    """Return the name of a new run directory: when, what, and random digits."""
    day, _, rest = new_stamp().partition("_")
    clock, _, digits = rest.partition("_")
    what = "_".join(slug(str(part).rpartition(".")[2]) for part in (data, student, loss))
    return f"{day}_{clock}_{what}_{seed}_{digits}"


OmegaConf.register_new_resolver("run_name", run_name, replace=True)
OmegaConf.register_new_resolver("run_stamp", new_stamp, replace=True)
