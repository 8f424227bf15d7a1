"""Run directories: what a finished training leaves, under file names that only this package knows."""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from kd_lightning.utils.checks import UserError

CONFIG, METRICS, BEST, LAST = "config.yaml", "metrics.json", "best.ckpt", "last.ckpt"
STUDENT = "student.safetensors"
EVALUATION = "evaluation.json"  # written by kd_lightning.evaluate
SCHEMA = 2  # of a run directory, in metrics.json and at the top of config.yaml
_STAMP = f"# kd_lightning run, schema {SCHEMA}\n"

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
"""Keys that change none of the numbers that a run ends with."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its resolved configuration, and its metrics."""

    path: Path
    config: DictConfig
    metrics: dict[str, Any]

    @property
    def student(self) -> dict[str, Any]:
        """Scores of the student that is deployed and compared (`select`): `epoch`, `val` if held out, `test`."""
        scores: dict[str, Any] = self.metrics["student"][self.metrics["select"]]
        return scores


def flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    """Return a nested configuration as one dictionary, `loss.temperature` → 4.0; lists stay values."""
    if isinstance(node, DictConfig):
        node = OmegaConf.to_container(node)
    if not isinstance(node, dict):
        return {prefix: node}
    parts = [flatten(child, f"{prefix}.{name}" if prefix else str(name)) for name, child in node.items()]
    return {key: value for part in parts for key, value in part.items()}


def write_config(path: Path, config: DictConfig, exclusive: bool = False) -> None:
    """Write the resolved configuration into the run directory `path`.

    Raises:
        FileExistsError: With `exclusive`, if there is one: then the folder belongs to another run.
    """
    text = _STAMP + OmegaConf.to_yaml(config, resolve=True)
    if exclusive:
        with open(path / CONFIG, "x", encoding="utf-8") as f:
            f.write(text)
    else:
        replace(path / CONFIG, text)


def read_config(path: Path, key: str = "resume") -> DictConfig:
    """Return the resolved configuration of the run in `path`.

    Raises:
        UserError: If there is none, if it is damaged, or of another schema.
    """
    if not (path / CONFIG).is_file():
        raise UserError(f"{key}: {path} is not a run directory (it has no {CONFIG}); give outputs/train/<run>")
    damaged = UserError(f"{key}: {path / CONFIG} is damaged; start a new run")
    try:
        text = (path / CONFIG).read_text(encoding="utf-8")
        config = OmegaConf.create(text)
    except (YAMLError, UnicodeDecodeError) as e:
        raise damaged from e
    if not text.startswith(_STAMP):
        found = re.match(r"# kd_lightning run, schema (\d+)\n", text)
        raise UserError(
            f"{key}: {path} has schema {found[1] if found else 1}, this version reads {SCHEMA}; run it again"
        )
    if not isinstance(config, DictConfig) or not {"data", "model", "loss", "trainer"} <= set(config):
        raise damaged
    return config


def write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Write `metrics.json`, whole or not at all; its presence says that the run is finished."""
    checksums = {name: checksum(path / name) for name in (STUDENT,) if (path / name).is_file()}
    replace(path / METRICS, json.dumps({"schema": SCHEMA} | metrics | {"sha256": checksums}, indent=2) + "\n")


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def is_finished(path: Path) -> bool:
    """Return whether the run in `path` is finished."""
    return (path / METRICS).is_file()


def read(path: Path) -> Run:
    """Return the finished run in `path`. Raises UserError if there is none, or it is of another schema."""
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
    """Return whether the metrics have what every table begins with."""
    try:
        student, teacher = metrics["student"], metrics.get("teacher")
        models = [student["last"], student[metrics["select"]], teacher or student["last"]]
        numbers = [model["test"]["accuracy"] for model in models] + [metrics[k] for k in ("seconds", "epochs")]
        numbers += [size[k] for size in (student, teacher or student) for k in ("parameters", "macs")]
        return all(isinstance(n, (int, float)) for n in numbers) and {"precision", "accelerator"} <= metrics.keys()
    except (AttributeError, KeyError, TypeError):
        return False


def find(folder: Path) -> list[Run]:
    """Return all finished runs below `folder`, in order of their paths (numbers as numbers)."""
    return [read(path) for path in below(folder) if is_finished(path)]


def below(folder: Path) -> list[Path]:
    """Return all run directories below `folder`, finished or not, in order of their paths (numbers as numbers)."""
    paths = {p.parent for name in (CONFIG, METRICS) for p in folder.rglob(name)}
    return sorted(paths, key=lambda p: [(len(s), s) if s.isdigit() else (99, s) for s in p.parts])


def write_evaluation(path: Path, values: dict[str, Any]) -> None:
    """Write `evaluation.json`, whole or not at all; a list of numbers takes one line."""
    text = json.dumps(values, indent=2)
    text = re.sub(r"\[[^\[\]{}\"]*\]", lambda numbers: " ".join(numbers[0].split()), text)
    replace(path / EVALUATION, text + "\n")


def read_evaluation(path: Path) -> dict[str, Any] | None:
    """Return what `kd_lightning.evaluate` wrote about the run in `path`; None if nothing, or the file is damaged."""
    try:
        values: dict[str, Any] = json.loads((path / EVALUATION).read_text())
    except (OSError, ValueError):
        return None
    return values


def replace(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text)
    partial.replace(path)
