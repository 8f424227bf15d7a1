"""The teacher of a finished run: found again, never trained."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from kd_lightning import runs
from kd_lightning.data.module import DataModule
from kd_lightning.teachers.build import OpenedTeacher, TeacherSpec, build_teacher, open_teacher
from kd_lightning.training.objective import build_fusion
from kd_lightning.training.teacher_stage import teacher_folder
from kd_lightning.training.teachers import teacher_specs
from kd_lightning.types import Teacher
from kd_lightning.utils.checks import UserError

_PLACES = ("model.teacher_weights", "teacher_stage.dir")


@dataclass(frozen=True)
class FoundTeacher:
    """The teacher of a run, and its networks."""

    teacher: Teacher
    networks: tuple[OpenedTeacher, ...]


def find_teacher(run: runs.Run, config: DictConfig, data: DataModule) -> FoundTeacher:
    """Return the teacher of `run`, as it taught.

    Its weights lie where the run found them, unless `config` names another place.

    Args:
        run: The run.
        config: The run's configuration, as it may have been changed.
        data: The data that the run was trained on.

    Raises:
        UserError: If the weights are gone.
    """
    config = config.copy()
    weights = [str(path) for path in found_weights(run, config, data)]
    config.model.teacher_weights = weights if len(weights) > 1 else weights[0]
    if "weighting" in run.metrics["teacher"]:
        config.model.teacher_weighting = run.metrics["teacher"]["weighting"]  # as it was learned
    networks = tuple(open_teacher(spec, data) for spec in teacher_specs(config.model))
    fusion = build_fusion(config.loss, config.model)
    temperatures = run.metrics["teacher"].get("temperatures")  # as they were fitted
    return FoundTeacher(build_teacher(networks, data, fusion=fusion, temperatures=temperatures), networks)


def found_weights(run: runs.Run, config: DictConfig, data: DataModule) -> list[Path]:
    """Return the files or folders that hold the weights of each teacher of the run; see `find_teacher`."""
    moved = any(OmegaConf.select(config, key) != OmegaConf.select(run.config, key) for key in _PLACES)
    seen, specs = [] if moved else _recorded(run), teacher_specs(config.model)
    return seen if len(seen) == len(specs) else [_weights(config, spec, data) for spec in specs]


def _recorded(run: runs.Run) -> list[Path]:
    """Return where the run saw the weights; nothing if one is gone."""
    found = []
    for path in run.metrics.get("teacher", {}).get("weights", []):
        there = [p for p in (run.path / path["relative"], Path(path["absolute"])) if p.exists()]
        if not there:
            return []
        found.append(there[0])
    return found


def _weights(config: DictConfig, spec: TeacherSpec, data: DataModule) -> Path:
    if not spec.is_trained_here:
        return Path(spec.weights)
    folder = teacher_folder(config, spec, data)
    if not runs.is_finished(folder):
        raise UserError(f"model.teacher_weights: {folder} is gone; name them with model.teacher_weights=PATH")
    return folder
