"""Run directories: what a finished training leaves, under file names that only this package knows."""

import json
import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from kd_lightning.config import Config
from kd_lightning.runs.names import resume_word
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.files import checksum, write_text

CONFIG, METRICS, BEST, LAST = "config.yaml", "metrics.json", "best.ckpt", "last.ckpt"
PREVIOUS = "previous.ckpt"  # the last checkpoint but one, until the run is finished
EPOCH = "epoch={}.ckpt"  # a checkpoint that stays: `trainer.keep_epochs`
NONFINITE = "nonfinite.json"  # the batches whose loss was not a finite number
STUDENT = "student.safetensors"
EVALUATION = "evaluation.json"  # written by kd_lightning.evaluate
SCHEMA = 2  # of a run directory, in metrics.json and at the top of config.yaml
_KEYS = {field.name for field in fields(Config)} - {"trust", "logger", "callbacks"}
_KEPT = re.escape(EPOCH).replace(r"\{\}", r"(\d+)")
_STAMP = f"# kd_lightning run, schema {SCHEMA}\n"


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


def write_config(path: Path, config: DictConfig, exclusive: bool = False) -> None:
    """Write the resolved configuration into the run directory `path`.

    Raises:
        FileExistsError: With `exclusive`, if there is one: then the folder belongs to another run.
    """
    text = _STAMP + OmegaConf.to_yaml(config, resolve=True)
    write_text(path / CONFIG, text, exclusive)


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
    except (YAMLError, UnicodeDecodeError, RecursionError) as e:
        raise damaged from e
    if not text.strip():
        raise damaged
    if not text.startswith(_STAMP):
        found = re.match(r"# kd_lightning run, schema (\d+)\n", text)
        raise UserError(
            f"{key}: {path} has schema {found[1] if found else 1}, this version reads {SCHEMA}; run it again"
        )
    if not isinstance(config, DictConfig) or not set(config) >= _KEYS or not text.endswith("\n"):
        raise damaged
    return config


def write_metrics(path: Path, metrics: dict[str, Any]) -> None:
    """Write `metrics.json`, whole or not at all; its presence says that the run is finished, or has diverged."""
    checksums = {name: checksum(path / name) for name in (STUDENT,) if (path / name).is_file()}
    write_text(path / METRICS, _json({"schema": SCHEMA} | metrics | {"sha256": checksums}))


def write_diverged(path: Path, how: dict[str, Any]) -> None:
    """Record in `metrics.json` that the run in `path` ended with a loss that was not a finite number.

    Scores that it had before it went on stay there.

    Args:
        path: The run directory.
        how: `epoch`, `step` and whatever else is known of it.
    """
    write_text(path / METRICS, _json(_metrics(path) | {"schema": SCHEMA, "diverged": True} | how))


def _json(values: dict[str, Any]) -> str:
    return json.dumps(_finite(values), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """Return plain values in which null stands for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(child) for child in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def go_on(path: Path, config: DictConfig) -> None:
    """Let the run in `path` begin its training, or go on with it, by `config`.

    A finished run is unfinished again, until its new scores are there. The old scores stay in `metrics.json`, marked
    with `continues`: they are not those of the new budget.
    """
    if is_finished(path):
        write_text(path / METRICS, _json(_metrics(path) | {"continues": True}))
    write_config(path, config)


def is_finished(path: Path) -> bool:
    """Return whether the run in `path` is finished; one that has diverged, or goes on with more epochs, is not."""
    return (path / METRICS).is_file() and not {"diverged", "continues"} & _metrics(path).keys()


def diverged(path: Path) -> dict[str, Any] | None:
    """Return how the run in `path` diverged (`epoch`, `step`, …); None if it did not."""
    metrics = _metrics(path)
    return metrics if metrics.get("diverged") else None


def _metrics(path: Path) -> dict[str, Any]:
    """Return what `metrics.json` holds; nothing if there is none, or it is damaged."""
    try:
        metrics = json.loads((path / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return metrics if isinstance(metrics, dict) else {}


def read(path: Path) -> Run:
    """Return the finished run in `path`. Raises UserError if there is none, or it is of another schema."""
    config = read_config(path, "run")
    if how := diverged(path):
        raise UserError(f"{path} has diverged in epoch {how.get('epoch')}, step {how.get('step')}: it has no result")
    if not is_finished(path):
        why = "goes on with more epochs and" if (path / METRICS).is_file() else f"has no {METRICS}: that run"
        raise UserError(f"{path} {why} did not finish; go on with {resume_word(path)}")
    metrics = _metrics(path)
    damaged = UserError(f"{path / METRICS} is damaged; run it again")
    if not metrics:
        raise damaged
    if (schema := metrics.get("schema")) != SCHEMA:
        raise UserError(f"{path / METRICS} has schema {schema}, this version reads {SCHEMA}; run it again")
    if not _is_whole(metrics):
        raise damaged
    return Run(path, config, metrics)


def _is_whole(metrics: dict[str, Any]) -> bool:
    """Return whether the metrics have what every table begins with."""
    try:
        student, teacher = metrics["student"], metrics.get("teacher")
        models = [student["last"], student[metrics["select"]], teacher or student["last"]]
        splits = [model[split] for model in models for split in ("test", "val") if split == "test" or split in model]
        numbers = [split["accuracy"] for split in splits] + [metrics[k] for k in ("seconds", "epochs")]
        numbers += [n for split in splits for n in split.values() if n is not None] + [metrics.get("images_seen") or 0]
        numbers += [size[k] for size in (student, teacher or student) for k in ("parameters", "macs")]
        whole = {"precision", "accelerator"} <= metrics.keys() and isinstance(metrics["sha256"][STUDENT], str)
        return whole and all(isinstance(n, (int, float)) for n in numbers)
    except (AttributeError, KeyError, TypeError):
        return False


def find(folder: Path) -> list[Run]:
    """Return all finished runs below `folder`, in order of their paths (numbers as numbers)."""
    return [read(path) for path in below(folder) if is_finished(path)]


def below(folder: Path) -> list[Path]:
    """Return all run directories below `folder`, finished or not, in order of their paths (numbers as numbers)."""
    paths = {p.parent for name in (CONFIG, METRICS) for p in folder.rglob(name)}
    return sorted(paths, key=lambda p: [_natural(part) for part in p.parts])


def _natural(name: str) -> tuple[int, str]:
    """Sort `2_kd` before `10_ce`, and numbers before words."""
    digits = re.match(r"\d+(?=_|$)", name)
    return (len(digits[0]), name) if digits else (99, name)


def write_evaluation(path: Path, values: dict[str, Any]) -> None:
    """Write `evaluation.json`, whole or not at all; a list of numbers takes one line."""
    text = json.dumps(values, indent=2)
    text = re.sub(r"\[[^\[\]{}\"]*\]", lambda numbers: " ".join(numbers[0].split()), text)
    write_text(path / EVALUATION, text + "\n")


def read_evaluation(path: Path) -> dict[str, Any] | None:
    """Return what `kd_lightning.evaluate` wrote about the run in `path`; None if nothing, or the file is damaged."""
    try:
        values: dict[str, Any] = json.loads((path / EVALUATION).read_text())
    except (OSError, ValueError, RecursionError):
        return None
    return values


def remove_partial(path: Path) -> None:
    """Remove what killed processes left half written in the run directory `path`."""
    names = [re.escape(name) for name in (CONFIG, METRICS, BEST, LAST, PREVIOUS, STUDENT, EVALUATION, NONFINITE)]
    for partial in path.iterdir():
        if re.fullmatch(rf"\.\d+\.({'|'.join([*names, _KEPT])})", partial.name):
            partial.unlink(missing_ok=True)


def kept_checkpoints(path: Path) -> dict[str, Path]:
    """Return the checkpoints of the run in `path` by `best`, `last`, and the numbers of the epochs that stay."""
    named = {"best": path / BEST, "last": path / LAST}
    epochs = {int(found[1]): file for file in path.iterdir() if (found := re.fullmatch(_KEPT, file.name))}
    named |= {str(epoch): epochs[epoch] for epoch in sorted(epochs)}
    return {name: file for name, file in named.items() if file.is_file()}
