"""The teacher of a finished run: found again, never trained."""

from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from kd_lightning import runs
from kd_lightning.data.module import DataModule
from kd_lightning.teachers.build import build_task_teachers
from kd_lightning.teachers.exported import weights_checksum
from kd_lightning.teachers.opened import OpenedTeacher, TeacherSpec, open_teachers
from kd_lightning.training.objective import build_fusion
from kd_lightning.training.tasks import model_of
from kd_lightning.training.teacher_stage import teacher_folder
from kd_lightning.training.teachers import task_specs
from kd_lightning.types import Teacher, whole
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.names import tasks_in

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
    weights: dict[str, list[str]] = {}
    for task, path in found_weights(run, config, data):
        weights.setdefault(task, []).append(str(path))
    each = {task: paths if len(paths) > 1 else paths[0] for task, paths in weights.items()}
    config.model.teacher_weights = whole(each)
    if "weighting" in run.metrics["teacher"]:
        config.model.teacher_weighting = run.metrics["teacher"]["weighting"]  # as it was learned
    tasks = tuple(data.tasks)
    networks = open_teachers(task_specs(config.model, list(weights), tasks), data)
    fusions = {task: build_fusion(config.loss, model_of(config.model, task, tasks)) for task in weights}
    temperatures = run.metrics["teacher"].get("temperatures")  # as they were fitted
    return FoundTeacher(build_task_teachers(networks, data, fusions, temperatures=temperatures), networks)


def found_weights(run: runs.Run, config: DictConfig, data: DataModule) -> list[tuple[str, Path]]:
    """Return the task of each teacher of the run, and the file or folder of its weights; see `find_teacher`."""
    moved = any(OmegaConf.select(config, key) != OmegaConf.select(run.config, key) for key in _PLACES)
    taught = tasks_in(run.metrics.get("teacher", {}).get("test", {}))
    seen, specs = [] if moved else _recorded(run), task_specs(config.model, taught, tuple(data.tasks))
    return seen if len(seen) == len(specs) else [(spec.task, _weights(config, spec, data)) for spec in specs]


def _recorded(run: runs.Run) -> list[tuple[str, Path]]:
    """Return where the run saw the weights; nothing if one is gone. Raises UserError if one has changed since then."""
    found = []
    for path in run.metrics.get("teacher", {}).get("weights", []):
        there = [p for p in (run.path / path["relative"], Path(path["absolute"])) if p.exists()]
        if not there:
            return []
        same = [p for p in there if "sha256" not in path or path["sha256"] == weights_checksum(p)]
        if not same:
            raise UserError(f"model.teacher_weights: {there[0]} has changed since it taught {run.path}")
        found.append((path.get("task", ""), same[0]))
    return found


def _weights(config: DictConfig, spec: TeacherSpec, data: DataModule) -> Path:
    if not spec.is_trained_here:
        return Path(spec.weights)
    folder = teacher_folder(config, spec, data)
    if not runs.is_finished(folder):
        raise UserError(f"model.teacher_weights: {folder} is gone; name them with model.teacher_weights=PATH")
    return folder
