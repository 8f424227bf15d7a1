"""Typed run configuration, and the only place that turns configuration nodes into objects."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from omegaconf import MISSING, DictConfig, OmegaConf

from kd_lightning.utils.checks import UserError

HERE = Path(__file__).resolve().parent
CONF_DIR = next(p for p in (HERE / "conf", HERE.parent / "conf") if p.is_dir())  # installed wheel, checkout


@dataclass
class ModelConfig:
    student: str = MISSING
    student_kwargs: dict[str, Any] = field(default_factory=dict)
    student_pretrained: bool = False
    student_weights: Any = None
    teacher: Any = MISSING
    teacher_kwargs: Any = field(default_factory=dict)
    teacher_weights: Any = "auto"
    teacher_cache: str = "auto"
    teacher_cache_dtype: str = "auto"
    teacher_normalize: Any = None
    teacher_input_size: Any = None
    teacher_classes: Any = None
    teacher_weighting: Any = None


@dataclass
class TeacherStageConfig:
    dir: str = MISSING
    seed: int = MISSING
    max_epochs: int = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING


@dataclass
class Config:
    """`Any` marks the groups whose keys are those of the object that they build."""

    data: Any = MISSING
    model: ModelConfig = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    trainer: Any = MISSING
    teacher_stage: TeacherStageConfig = MISSING
    seed: int = 0
    compile: Any = "auto"
    select: str = "last"
    resume: str | None = None


ConfigStore.instance().store(name="schema", node=Config)


def build(node: DictConfig, key: str, **kwargs: Any) -> Any:
    """Instantiates `node._target_`; `key` names the node in messages.

    Raises UserError for whatever the target refuses: these are values that the user typed.
    """
    check_given(node, key)
    try:
        return hydra.utils.instantiate(node, _convert_="all", **kwargs)
    except InstantiationException as e:
        cause = e.__cause__ or e
        if isinstance(cause, UserError):
            raise UserError(_key_as_typed(str(cause), key, str(e))) from None
        raise UserError(f"{key}: {_one_line(str(cause))}") from e


def _key_as_typed(message: str, key: str, told: str) -> str:
    """A node inside another knows only its own names: `loss.temperature` of `loss.kd` is `loss.kd.temperature`."""
    found = re.search(r"full_key: (\S+)", told)
    inside = found[1].removeprefix(key).strip(".") if found else ""
    return message.replace(f"{key}.", f"{key}.{inside}.", 1) if inside and message.startswith(f"{key}.") else message


def check_given(node: DictConfig, key: str) -> None:
    """Raises UserError if a key below the node called `key` still waits for its value."""
    for name in sorted(OmegaConf.missing_keys(node)):
        raise UserError(f"{key}.{name} must be given: {key}.{name}=…")


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return " · ".join(line for line in lines if not line.startswith("full_key"))
