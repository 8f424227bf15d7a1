"""Smaller students, each a run directory: pruned or quantized, then trained on or only measured."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor, nn

from kd_lightning import runs
from kd_lightning.deploy.files.card import is_images, is_text
from kd_lightning.deploy.files.formats import check_installed
from kd_lightning.deploy.prune import NEEDS, prune_channels, shapes
from kd_lightning.deploy.quantization.integer_graph import is_quantized
from kd_lightning.deploy.quantization.quantize import calibrate, quantized
from kd_lightning.deploy.recipe import describe_step, first_training, student_node, training_config
from kd_lightning.deploy.samples import samples, size, split
from kd_lightning.deploy.sparsity import prune_weights, sparsity
from kd_lightning.evaluation.opened import OpenedRun, open_run
from kd_lightning.runs import claims
from kd_lightning.runs.students import build_student, save_weights
from kd_lightning.training.run import train
from kd_lightning.types import StudentCard
from kd_lightning.utils.checks import UserError, integer, number
from kd_lightning.utils.console import say

PRUNED, SPARSE = (f"kd_lightning.deploy.{kind}" for kind in ("pruned", "sparse"))
START = "start.safetensors"
"""Weights that the training of a smaller student begins with, in its run directory."""
ROUNDING = 1e-3  # a fraction of the weights is a whole number of them
Made = tuple[nn.Module, dict[str, Any]]
"""A smaller student and its keys of `model`."""


def prune(
    run: OpenedRun,
    ratio: float,
    out: Path,
    *,
    structured: bool = False,
    steps: int = 1,
    distill: str | None = None,
    overrides: list[str] | None = None,
) -> Path:
    """Remove weights or channels of the deployed student, and train on.

    With several `steps` the fraction grows from s, the weights that are zero already, by (r − s)·(1 − (1 − k/n)³) (Zhu
    and Gupta, arXiv 1710.01878, eq. 1).

    Args:
        run: The run of the student.
        ratio: Fraction in (0, 1) of all weights, or of each layer's channels.
        out: Run directory of the smaller student.
        structured: Remove channels.
        steps: Number of trainings; each but the last is a run in `out/steps/`.
        distill: See `training_config`.
        overrides: Changes of the training.

    Returns:
        `out`.

    Raises:
        UserError: For whatever the user can mend; nothing is left then.
    """
    ratio, steps = _ratio("--prune", ratio), integer("--steps", steps, ge=1)
    if structured:
        check_installed("--structured", NEEDS, "compress")
    if is_quantized(run.student):
        raise UserError(f"--prune: the student in {run.path} is quantized; prune first, then quantize")
    if structured and run.card.name == SPARSE:
        raise UserError(f"--structured: single weights of {run.path} are pruned already; remove channels first")
    start = 0.0 if structured else sparsity(run.student)
    if ratio - start < ROUNDING:
        raise UserError(f"--prune {ratio:g}: {start:.0%} of the weights in {run.path} are zero already; give more")
    config = training_config(run, "prune", distill, True, overrides)
    with _new_folder(out):
        reached = 0.0
        for k in range(1, steps + 1):
            wanted = start + (ratio - start) * (1 - (1 - k / steps) ** 3)
            path = out if k == steps else out / "steps" / str(k)
            made = _without_channels(run, 1 - (1 - wanted) / (1 - reached)) if structured else _sparser(run, wanted)
            _train(path, config, made, run, {"prune": wanted, "structured": structured})
            reached = wanted
            if k < steps:
                run = open_run(path, [])
    return out


def quantize(
    run: OpenedRun,
    out: Path,
    *,
    qat: bool = False,
    distill: str | None = None,
    count: int = 1024,
    overrides: list[str] | None = None,
) -> Path:
    """Round weights and activations of the deployed student to 8 bits.

    Args:
        run: The run of the student.
        out: Run directory of the quantized student.
        qat: Train on through the rounding.
        distill: See `training_config`.
        count: Number of training samples that give the ranges of activations.
        overrides: Changes of the training.

    Returns:
        `out`.

    Raises:
        UserError: For whatever the user can mend; nothing is left then.
    """
    integer("--calibration", count, ge=1)
    if is_quantized(run.student) and not qat:
        raise UserError(f"--quantize: the student in {run.path} is quantized already; train it on with --qat")
    config = training_config(run, "int8", distill, qat, overrides)
    x, _ = samples(run.data, "train", count)
    if not isinstance(x, Tensor) and not is_text(run.card):
        raise UserError(f"--quantize: an input of {run.data.name} is several tensors; only nets of one are quantized")
    with _new_folder(out):
        what: dict[str, Any] = {"quantize": "int8", "qat": qat}
        student: nn.Module = copy.deepcopy(run.student)
        if is_quantized(student):
            node = {"student": run.card.name, "student_kwargs": dict(run.card.kwargs)}
        else:
            student = quantized(student, run.data.example(2))
            calibrate(student, split(x, 128))
            shape = {"shape": list(x.shape[1:])} if isinstance(x, Tensor) and not is_images(run.card) else {}
            node = student_node("int8", run.card, **shape)
            what["calibration"] = size(x)
        _train(out, config, (student, node), run, what)
    return out


def _without_channels(run: OpenedRun, ratio: float) -> Made:
    original = _inside(run.card, PRUNED)
    whole = build_student(original, str(run.path))
    smaller = prune_channels(run.student, run.data.example(2), ratio)
    node = student_node("pruned", original, layers=shapes(smaller, shapes(whole)))
    card = replace(original, name=node["student"], kwargs=node["student_kwargs"])
    ours, theirs = ({k: v.shape for k, v in m.state_dict().items()} for m in (build_student(card, ""), smaller))
    if differing := [k for k in theirs if ours.get(k) != theirs[k]]:
        raise UserError(
            f"--structured: {original.name} has layers whose channels cannot be removed: {differing[0]}; prune single "
            "weights, without --structured"
        )
    return smaller, node


def _sparser(run: OpenedRun, ratio: float) -> Made:
    return prune_weights(run.student, ratio), student_node("sparse", _inside(run.card, SPARSE))


def _inside(card: StudentCard, kind: str) -> StudentCard:
    """Return the card of the model inside `kind`, if it is one of those."""
    if card.name != kind:
        return card
    return replace(card, name=card.kwargs["of"], kwargs=card.kwargs["kwargs"])


def _train(path: Path, config: DictConfig, made: Made, run: OpenedRun, what: dict[str, Any]) -> None:
    """Make the run in `path`: one training, or measurement, of a smaller student."""
    student, node = made
    path.mkdir(parents=True, exist_ok=True)
    save_weights(path / START, student)
    config = config.copy()
    config.model.update(node)
    config.model.student_weights = str(path / START)
    say(describe_step(path, config))
    compression = what | {"from": str(run.path), "first": first_training(run), "zeros": sparsity(student)}
    train(config, path, extra={"compression": compression})


def _ratio(key: str, value: float) -> float:
    number(key, value, gt=0)
    if value >= 1:
        raise UserError(f"{key} must be a number between 0 and 1, the fraction to remove, got {value}")
    return value


@contextmanager
def _new_folder(out: Path) -> Iterator[None]:
    """Claim `out`, which must not hold anything; remove it again if nothing was trained or finished in it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out: {out} exists; choose another folder")
    try:
        yield
    except Exception as e:
        if not any(path for name in (runs.LAST, runs.METRICS) for path in out.rglob(name)):
            _discard(out)
        if isinstance(e, OSError):
            raise UserError(f"--out: cannot write to {out}: {e.strerror}; choose another folder") from e
        raise


def _discard(out: Path) -> None:
    """Remove by name what the steps in `out` have made, and the folders that are empty then."""
    steps = [*(out / "steps").glob("*"), out / "steps", out]
    for folder in steps:
        (folder / START).unlink(missing_ok=True)
        claims.discard_if_empty(folder)
