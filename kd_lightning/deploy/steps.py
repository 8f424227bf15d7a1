"""Smaller students, each a run directory: pruned or quantized, then trained on or only measured."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import nn

from kd_lightning import runs
from kd_lightning.deploy.files.formats import check_installed
from kd_lightning.deploy.prune import NEEDS, prune_channels, shapes
from kd_lightning.deploy.quantization.integer_graph import is_quantized
from kd_lightning.deploy.quantization.quantize import calibrate, quantized
from kd_lightning.deploy.recipe import describe_step, first_training, student_node, training_config
from kd_lightning.deploy.source import Source, open_source
from kd_lightning.deploy.sparsity import prune_weights, sparsity
from kd_lightning.models import create_model
from kd_lightning.train import train
from kd_lightning.utils.checks import UserError, integer, number
from kd_lightning.utils.console import say

PRUNED, SPARSE, INT8 = (f"kd_lightning.deploy.{kind}" for kind in ("pruned", "sparse", "int8"))
Made = tuple[nn.Module, dict[str, Any]]
"""A smaller student and its keys of `model`."""


def prune(
    source: Source,
    ratio: float,
    out: Path,
    *,
    structured: bool = False,
    steps: int = 1,
    distill: str | None = None,
    words: list[str] | None = None,
) -> Path:
    """Removes the fraction `ratio` of the channels of each layer (`structured`) or of all weights, and trains on.

    With several `steps`, each but the last a run in `out/steps/`, the fraction grows by r·(1 − (1 − k/n)³) (Zhu and
    Gupta, arXiv 1710.01878, eq. 1). Returns `out`. Raises UserError.
    """
    ratio, steps = _ratio("--prune", ratio), integer("--steps", steps, least=1)
    if structured:
        check_installed("--structured", NEEDS, "compress")
    if is_quantized(source.student):
        raise UserError(f"--prune: the student in {source.path} is quantized; prune first, then quantize")
    if structured and source.about["name"] == SPARSE:
        raise UserError(f"--structured: single weights of {source.path} are pruned already; remove channels first")
    config = training_config(source, "prune", distill, True, words or [])
    with _new_folder(out):
        reached = 0.0
        for k in range(1, steps + 1):
            wanted = ratio * (1 - (1 - k / steps) ** 3)
            path = out if k == steps else out / "steps" / str(k)
            student = source.again()
            if structured:
                made = _without_channels(student, source.about, 1 - (1 - wanted) / (1 - reached))
            else:
                made = _without_weights(student, source.about, wanted)
            _run(path, config, made, source, {"prune": wanted, "structured": structured})
            reached = wanted
            if k < steps:
                source = open_source(path, [])
    return out


def quantize(
    source: Source,
    out: Path,
    *,
    qat: bool = False,
    distill: str | None = None,
    images: int = 1024,
    words: list[str] | None = None,
) -> Path:
    """Rounds weights and activations to 8 bits, with ranges from `images` training images, and with `qat` trains on
    through the rounding. Returns `out`. Raises UserError."""
    integer("--calibration", images, least=1)
    if is_quantized(source.student) and not qat:
        raise UserError(f"--quantize: the student in {source.path} is quantized already; train it on with --qat")
    config = training_config(source, "int8", distill, qat, words or [])
    with _new_folder(out):
        x, _ = source.images("train", images)
        if is_quantized(source.student):
            made = source.again(), {"student": source.about["name"], "student_kwargs": source.about["kwargs"]}
        else:
            student = quantized(source.again(), source.about["image_size"])
            calibrate(student, x.split(128))
            made = student, student_node("int8", source.about)
        _run(out, config, made, source, {"quantize": "int8", "qat": qat, "calibration": len(x)})
    return out


def _without_channels(student: nn.Module, about: dict[str, Any], ratio: float) -> Made:
    original = _inside(about, PRUNED)
    whole = create_model(
        original["name"], about["num_classes"], image_size=about["image_size"], **(original["kwargs"] or {})
    )
    smaller = prune_channels(student, about["image_size"], ratio)
    return smaller, student_node("pruned", original, layers=shapes(smaller, shapes(whole)))


def _without_weights(student: nn.Module, about: dict[str, Any], ratio: float) -> Made:
    return prune_weights(student, ratio), student_node("sparse", _inside(about, SPARSE))


def _inside(about: dict[str, Any], kind: str) -> dict[str, Any]:
    """`about` the model inside `kind`, if it is one of those."""
    if about["name"] != kind:
        return about
    return about | {"name": about["kwargs"]["of"], "kwargs": about["kwargs"]["kwargs"]}


def _run(path: Path, config: DictConfig, made: Made, source: Source, what: dict[str, Any]) -> None:
    """One training, or measurement, of a smaller student as the run in `path`."""
    student, node = made
    path.mkdir(parents=True, exist_ok=True)
    start = path / "start.safetensors"
    runs.save_weights(start, student)
    config = config.copy()
    config.model.update(node)
    config.model.student_weights = str(start)
    say(describe_step(path, config))
    metrics = train(config, path)
    compressed, _ = runs.load_student(path)
    metrics["compression"] = what | {"from": str(source.path), "first": first_training(source)}
    metrics["compression"]["zeros"] = sparsity(compressed)
    runs.write_metrics(path, metrics)


def _ratio(key: str, value: float) -> float:
    number(key, value, above=0)
    if value >= 1:
        raise UserError(f"{key} must be a number between 0 and 1, the fraction to remove, got {value}")
    return value


@contextmanager
def _new_folder(out: Path) -> Iterator[None]:
    """`out`, which must not hold anything; it is removed again if nothing was trained in it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out} exists; choose another folder")
    try:
        yield
    except Exception as e:
        if not any(out.rglob(runs.LAST)):
            shutil.rmtree(out, ignore_errors=True)
        if isinstance(e, OSError):
            raise UserError(f"--out: cannot write to {out}: {e.strerror}; choose another folder") from e
        raise
