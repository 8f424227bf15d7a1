"""A finished run with all that its evaluation needs: its data, its students, its teacher."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from kd_lightning import runs
from kd_lightning.config import CONF_DIR, build
from kd_lightning.evaluation.found import find_teacher
from kd_lightning.teachers import Teacher
from kd_lightning.utils.checks import UserError, choice

# Where things lie and how fast they are read; whatever else is changed would be another experiment.
CHANGEABLE = (
    "data",
    "data.root",
    "data.num_workers",
    "data.verify",
    "data.eval_batch_size",
    "model.teacher_weights",
    "teacher_stage.dir",
    "trainer.accelerator",
)


@dataclass(frozen=True)
class Subject:
    """What is evaluated."""

    run: runs.Run
    config: DictConfig
    """The run's own, with what was typed."""
    data: Any
    students: dict[str, nn.Module]
    """`best` (where validation chose one) and `last`."""
    about: dict[str, Any]
    teacher: Teacher | None
    note: str | None
    """Why there is no teacher, if the run had one."""


def open_subject(path: Path, overrides: list[str]) -> Subject:
    """Reads the run in `path`, its data prepared. Raises UserError if it is unfinished or does not fit its data.

    A teacher whose weights are gone is none.
    """
    run = runs.read(path)
    students, about = runs.load_students(path)
    config = overridden(run.config, overrides)
    data = open_data(path, run.config, config, about)
    teacher, note = None, None
    if "teacher" in run.metrics:
        try:
            same_data = config.data._target_ == run.config.data._target_
            trained_on = data if same_data else build(run.config.data, "data")  # its fingerprint names the teacher
            teacher = find_teacher(run, config, trained_on)
        except UserError as e:
            note = f"the teacher could not be rebuilt, the student is evaluated alone: {e}"
    return Subject(run, config, data, students, about, teacher, note)


def open_data(path: Path, trained_on: DictConfig, config: DictConfig, about: dict[str, Any]) -> Any:
    """The data of `config`, prepared, for the student `about` of the run in `path`. Raises UserError if it fits not."""
    if config.data._target_ != trained_on.data._target_:
        config.data.normalize = about["normalize"]
    data = build(config.data, "data")
    data.prepare_data()
    data.setup()
    if list(data.classes) != about["classes"] or data.image_size != about["image_size"]:
        raise UserError(
            f"data: {data.name} has {data.num_classes} classes of {data.image_size} px images, but {path} was trained "
            f"on {about['num_classes']} of {about['image_size']} px ({', '.join(about['classes'][:4])} …)"
        )
    return data


def overridden(config: DictConfig, overrides: list[str]) -> DictConfig:
    """`config` with `key=value` words applied; `data=NAME` takes the whole group. Raises UserError for other keys."""
    config = config.copy()
    words = sorted(overrides, key=lambda word: not word.startswith("data="))  # a group before its keys
    other_data = any(word.startswith("data=") for word in words)
    for word in words:
        key, _, value = word.partition("=")
        if key == "data":
            known = sorted(p.stem for p in (CONF_DIR / "data").glob("*.yaml"))
            config.data = OmegaConf.load(CONF_DIR / "data" / f"{choice('data', value, known)}.yaml")
        elif key in CHANGEABLE or (other_data and key.startswith("data.")):
            config.merge_with_dotlist([word])
        else:
            raise UserError(f"{word} cannot be changed in an evaluation; what can: {', '.join(CHANGEABLE)}")
    return config
