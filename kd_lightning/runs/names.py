"""Names: of networks (`int8(pruned(resnet20))`), of new run directories, of paths as a command line takes them."""

import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict

from kd_lightning.runs.command import Command
from kd_lightning.utils.names import slug

HERE = "kd_lightning.deploy."


def student_name(name: str, kwargs: Any) -> str:
    """Return the short name of a model that `create_model(name, …)` makes; most keep their name."""
    if not name.startswith(HERE) or "of" not in kwargs:
        return name
    return f"{name.removeprefix(HERE)}({student_name(kwargs['of'], kwargs.get('kwargs') or {})})"


def teacher_name(config: DictConfig, task: str = "") -> str:
    """Return `resnet50`, or `resnet50 + wrn_40_2` for several teachers; of an exported file its name.

    Teachers of several tasks are `resnet56 (object) + resnet20 (kind)`; with `task`, its own one.
    """
    teacher, weights = config.model.teacher, config.model.get("teacher_weights")
    if isinstance(teacher, DictConfig) and not task:
        return " + ".join(f"{teacher_name(config, one)} ({one})" for one in map(str, teacher))
    if task:
        teacher, weights = (each[task] if isinstance(each, DictConfig) else each for each in (teacher, weights))
    names = list(teacher) if isinstance(teacher, ListConfig) else [teacher]
    files = list(weights) if isinstance(weights, ListConfig) else [weights] * len(names)
    files += [None] * (len(names) - len(files))
    return " + ".join(
        Path(str(file)).name if str(file).endswith((".onnx", ".pt2")) else str(name)
        for name, file in zip(names, files, strict=False)
    )


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


def train_command() -> list[str]:
    """Return the words of the command that this process was given; none outside Hydra."""
    if not HydraConfig.initialized():
        return []
    return ["python", "-m", "kd_lightning.train", *HydraConfig.get().overrides.task]


def run_name(data: Any, student: Any, loss: Any, seed: Any, typed: Any = ()) -> str:
    """Return the name of a new run directory: when, what, and random digits.

    Of the overrides `typed`, those of the loss are told: `…_digits_resnet8_kd_T4_alpha0.9_seed1_…`.
    """
    day, _, rest = Command().stamp().partition("_")
    clock, _, digits = rest.partition("_")
    what = [slug(str(part).rpartition(".")[2]) for part in (data, student, loss)]
    what += [short(*word.split("=", 1)) for word in typed if word.startswith("loss.") and "=" in word]
    return _cut(f"{day}_{clock}_{'_'.join(what)}") + f"_seed{seed}_{digits}"


def short(key: str, value: Any) -> str:
    """Return an override as a few letters of a folder's name: `T4`, `alpha0.9`, `seed1`, `kd`."""
    if re.fullmatch(r"-?\d+(\.\d*)?(e[+-]?\d+)?", str(value)) and len(str(value)) > 8:
        value = f"{float(value):g}"  # Hydra writes 1e12 as 1000000000000.0
    value = re.sub(r"[^\w.+-]+", "-", str(value)).strip("-")
    name = key.lstrip("+~").rpartition(".")[2]
    if key in ("loss", "model.student", "data", "experiment", "optimizer", "scheduler"):
        return value
    return f"{'T' if name == 'temperature' else name}{value}"


def _cut(name: str) -> str:
    return name[:120]  # file systems take 255 bytes


def job_name(typed: Sequence[str]) -> str:
    """Return what tells a run of the sweep from the others, by its overrides: `kd_T4_seed1`."""
    sweep = Command().sweep
    keys = sweep.keys if sweep else ()
    words = [word.split("=", 1) for word in typed if "=" in word]
    return "_".join(short(key, value) for key, value in words if key.lstrip("+~") in keys)


def sweep_name(number: Any, typed: Any) -> str:
    """Return the name of a run's folder in its sweep: its number, and what tells it from the others."""
    return _cut("_".join(filter(None, (str(number), job_name(list(typed))))))


OmegaConf.register_new_resolver("run_name", run_name, replace=True)
OmegaConf.register_new_resolver("sweep_name", sweep_name, replace=True)
OmegaConf.register_new_resolver("run_stamp", lambda: Command().stamp(), replace=True)
