"""Run directories: everything a run learned, under names that only this file knows."""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from yaml import YAMLError

from kd_lightning.models import create_model
from kd_lightning.models.checkpoints import RUN_WEIGHTS, load_weights
from kd_lightning.utils.checks import UserError

CONFIG, METRICS, BEST, LAST = "config.yaml", "metrics.json", "best.ckpt", "last.ckpt"
EVALUATION = "evaluation.json"  # of kd_lightning.evaluate
SCHEMA = 1  # of metrics.json

# What changes nothing in the numbers that a run ends with.
INCIDENTAL = (
    "data.root",
    "data.num_workers",
    "data.verify",
    "model.teacher_cache",
    "teacher_stage.dir",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "resume",
)


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its resolved configuration, and its metrics."""

    path: Path
    config: DictConfig
    metrics: dict[str, Any]


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """A nested configuration as one dictionary, `loss.temperature` → 4.0; lists stay values."""
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node)
    if not isinstance(node, dict):
        return {prefix: node}
    parts = [flatten(child, f"{prefix}.{name}" if prefix else str(name)) for name, child in node.items()]
    return {key: value for part in parts for key, value in part.items()}


def read_config(path: Path, key: str = "resume") -> DictConfig:
    """The resolved configuration of the run in `path`. Raises UserError if there is none."""
    if not (path / CONFIG).is_file():
        raise UserError(f"{key}: {path} is not a run directory (it has no {CONFIG}); give outputs/train/<run>")
    try:
        config = OmegaConf.load(path / CONFIG)
        assert isinstance(config, DictConfig)
    except (YAMLError, UnicodeDecodeError, AssertionError) as e:
        raise UserError(f"{key}: {path / CONFIG} is damaged; start a new run") from e
    return config


def load_checkpoint(module: nn.Module, path: Path) -> int:
    """Loads a Lightning checkpoint's weights into `module`; returns the number of epochs it was trained for."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])
    return int(state["epoch"]) + 1


def write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Writes `metrics.json`, whole or not at all; its presence says that the run is finished."""
    replace(path / METRICS, json.dumps({"schema": SCHEMA} | metrics, indent=2) + "\n")


def is_finished(path: Path) -> bool:
    return (path / METRICS).is_file()


def read(path: Path) -> Run:
    """Reads a finished run. Raises UserError if it is none, or of another version."""
    config = read_config(path, "run")
    if not is_finished(path):
        raise UserError(f"{path} has no {METRICS}: that run did not finish; go on with resume={path}")
    damaged = UserError(f"{path / METRICS} is damaged; run it again")
    try:
        metrics = json.loads((path / METRICS).read_text())
        schema = metrics.get("schema")
    except (ValueError, AttributeError) as e:
        raise damaged from e
    if schema != SCHEMA:
        raise UserError(f"{path / METRICS} has schema {schema}, this version reads {SCHEMA}; run it again")
    if not _is_whole(metrics):
        raise damaged
    return Run(path, config, metrics)


def _is_whole(metrics: dict[str, Any]) -> bool:
    """Whether it has what every table begins with."""
    try:
        student, teacher = metrics["student"], metrics.get("teacher")
        models = [student["last"], student.get("best", student["last"]), teacher or student["last"]]
        numbers = [model["test"]["accuracy"] for model in models] + [metrics[k] for k in ("seconds", "epochs")]
        numbers += [size[k] for size in (student, teacher or student) for k in ("parameters", "macs")]
        return all(isinstance(n, (int, float)) for n in numbers) and {"precision", "accelerator"} <= metrics.keys()
    except (AttributeError, KeyError, TypeError):
        return False


def find(folder: Path) -> list[Run]:
    """All finished runs below `folder`, in order of their paths (numbers as numbers)."""
    return [read(path) for path in below(folder) if is_finished(path)]


def below(folder: Path) -> list[Path]:
    """All run directories below `folder`, finished or not, in order of their paths (numbers as numbers)."""
    paths = {p.parent for name in (CONFIG, METRICS) for p in folder.rglob(name)}
    return sorted(paths, key=lambda p: [(len(s), s) if s.isdigit() else (99, s) for s in p.parts])


def save_student(path: Path, model: nn.Module, about: dict[str, Any]) -> None:
    """Writes the weights with `about` (name, kwargs, num_classes, image_size, classes, normalize) to rebuild it."""
    save_weights(path / RUN_WEIGHTS, model, {"kd_lightning": json.dumps(about)})


def save_weights(path: Path, model: nn.Module, metadata: dict[str, str] | None = None) -> None:
    """Writes a model's state as safetensors, whole or not at all."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.touch()
    mode = partial.stat().st_mode
    save_file(state, partial, metadata=metadata)
    partial.chmod(mode)  # safetensors keeps it to its owner
    partial.replace(path)


def load_student(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Rebuilds the student of the run in `path`, in eval mode, with what `save_student` was told about it."""
    weights = path / RUN_WEIGHTS
    if not weights.is_file():
        raise UserError(f"{path} has no {RUN_WEIGHTS}: that run did not finish; go on with resume={path}")
    try:
        with safe_open(weights, "pt") as f:
            about = json.loads(f.metadata()["kd_lightning"])
    except (SafetensorError, ValueError, KeyError, TypeError) as e:
        raise UserError(f"{weights} is damaged, or not of a run; run it again") from e
    model = create_model(about["name"], about["num_classes"], image_size=about["image_size"], **about["kwargs"])
    load_weights(model, weights, key=str(path))
    return model.eval(), about


def load_students(path: Path) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """The students `best` on validation (where there was any) and `last`, and what `save_student` was told.

    One of them has the deployed weights; the other is missing if its checkpoint was deleted.
    """
    deployed, about = load_student(path)
    if "best" not in read(path).metrics["student"]:
        return {"last": deployed}, about
    students = {"best": deployed}
    if (path / LAST).is_file():
        students["last"], _ = load_student(path)  # not a copy, whose hooks would remain the first one's
        load_weights(students["last"], path / LAST, key=str(path))
    return students, about


def write_evaluation(path: Path, values: dict[str, Any]) -> None:
    """Writes `evaluation.json`, whole or not at all; a list of numbers takes one line."""
    text = json.dumps(values, indent=2)
    text = re.sub(r"\[[^\[\]{}\"]*\]", lambda numbers: " ".join(numbers[0].split()), text)
    replace(path / EVALUATION, text + "\n")


def read_evaluation(path: Path) -> dict[str, Any] | None:
    """What `kd_lightning.evaluate` wrote of the run in `path`, if it did and the file is whole."""
    try:
        values: dict[str, Any] = json.loads((path / EVALUATION).read_text())
    except (OSError, ValueError):
        return None
    return values


def replace(path: Path, text: str) -> None:
    """Writes a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)
