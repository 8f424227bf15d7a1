"""Export of a student to a file that is read back and compared before it gets its name."""

import copy
from pathlib import Path

import torch
from torch import nn

from kd_lightning.deploy.files.card import file_card, takes_raw
from kd_lightning.deploy.files.formats import FORMATS, check_installed, open_file
from kd_lightning.deploy.files.network import Network
from kd_lightning.deploy.files.parity import TOLERANCE, Parity, compare
from kd_lightning.deploy.quantization.integer_graph import integer_graph, is_quantized
from kd_lightning.deploy.samples import joined, samples, split, spread
from kd_lightning.evaluation.opened import OpenedRun
from kd_lightning.models.hooks import logits_of
from kd_lightning.types import StudentCard, each_of, part, whole
from kd_lightning.utils.checks import UserError, choice, number
from kd_lightning.utils.files import write_whole
from kd_lightning.utils.quiet import unlogged
from kd_lightning.utils.trust import trusting

SAMPLES = 256
"""Test samples on which file and student are compared."""


def export(
    run: OpenedRun,
    form: str,
    out: Path | None = None,
    *,
    dynamic_batch: bool = False,
    fp16: bool = False,
    preprocessing: bool = False,
    raw: bool = False,
    tolerance: float | None = None,
    force: bool = False,
) -> tuple[Path, Parity]:
    """Write the deployed student of a run to a file.

    Args:
        run: The run.
        form: One of `FORMATS`.
        out: The file; by default `model.<suffix>` in the run directory.
        dynamic_batch: The file takes any number of samples, not only one.
        fp16: Weights and arithmetic are float16; inputs and logits stay as they are.
        preprocessing: The file takes pixels, uint8 `[N, H, W, 3]`, or waveforms, float32 `[N, samples]`.
        raw: Logits are not divided by the temperature of the student's calibration.
        tolerance: Largest difference of a logit.
        force: A file that exists is written over.

    Returns:
        The file, and how well it agrees with PyTorch.

    Raises:
        UserError: If something is missing, cannot be exported or differs by more. No file is left then.
    """
    choice("--format", form, list(FORMATS))
    check_installed(f"--format {form}", FORMATS[form].needs, "export")
    _check(run, form, fp16, preprocessing)
    precision = "int8" if is_quantized(run.student) else "fp16" if fp16 else "fp32"
    weights_only = form == "safetensors"
    card = file_card(
        run.card,
        run.data.example(1),
        preprocessing=preprocessing,
        precision=precision,
        batch=None if dynamic_batch or weights_only else 1,
        raw=raw or weights_only,
    )
    path = _free_path(out or run.path / f"model{'-fp16' if fp16 else ''}{FORMATS[form].suffix}", form, force)
    most, least = TOLERANCE[precision]
    if tolerance is not None:
        most = number("--tolerance", tolerance, gt=0)

    def write(partial: Path) -> Parity:
        _make(partial, form, run, card)
        parity = _compare(partial, run, card)
        if not parity.within(most, least):
            raise UserError(
                f"{path} is not kept: it differs from PyTorch {parity}; at most {most:g} and at least {least:.1%} "
                "are allowed (--tolerance)"
            )
        return parity

    try:
        return path, write_whole(path, write)
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}; choose another file with --out") from e


def _check(run: OpenedRun, form: str, fp16: bool, preprocessing: bool) -> None:
    quantized = is_quantized(run.student)
    if quantized and form == "pt2":
        raise UserError("--format pt2: PyTorch would run an int8 student in floats; onnx runs it in integers")
    if quantized and fp16:
        raise UserError("--fp16: the student is quantized to int8 already")
    if preprocessing and form == "safetensors":
        raise UserError("--with-preprocessing: safetensors holds weights alone; use onnx or pt2")
    if preprocessing:
        try:
            run.data.raw_samples("test", torch.zeros(1, dtype=torch.long))
        except UserError as e:
            raise UserError(f"--with-preprocessing is for images and recordings: {e}") from e


def _free_path(path: Path, form: str, force: bool) -> Path:
    if path.suffix != FORMATS[form].suffix:
        raise UserError(f"--out: a file of --format {form} ends in {FORMATS[form].suffix}, got {path}")
    if path.exists() and not force:
        raise UserError(f"{path} exists; write over it with --force, or choose another with --out")
    return path


def _make(path: Path, form: str, run: OpenedRun, card: StudentCard) -> None:
    student: nn.Module = copy.deepcopy(run.student).to(memory_format=torch.contiguous_format)
    if is_quantized(student) and form == "onnx":
        student = integer_graph(student)
    count = card.extra["batch"] or 2
    raw = run.data.raw_samples("test", torch.arange(count) % run.data.sizes["test"]) if takes_raw(card) else None
    example = run.data.example(count) if raw is None else raw.contiguous()
    try:
        with unlogged():
            FORMATS[form].write(Network(student, card).eval(), card, example, path)
    except OSError:
        raise
    except Exception as e:  # whatever an exporter raises about an operation
        raise UserError(f"--format {form}: {run.card.name} cannot be exported: {_reason(e)}") from e


def _reason(e: BaseException) -> str:
    """Return the innermost cause in one line."""
    while e.__cause__ is not None:
        e = e.__cause__
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return (lines[0] if lines else type(e).__name__)[:200]


@torch.no_grad()
def _compare(path: Path, run: OpenedRun, card: StudentCard) -> Parity:
    x, _ = samples(run.data, "test", SAMPLES)
    student = run.student.eval().float().cpu()
    expected = joined([logits_of(student, few) for few in split(x, 64)])
    divided_by = each_of(card.extra.get("divided_by", {}), card.tasks, 1.0)
    expected = whole({task: part(expected, task) / t for task, t in divided_by.items()})
    if takes_raw(card):
        x = run.data.raw_samples("test", spread(run.data, "test", SAMPLES)).contiguous()
    with trusting():  # it was written a moment ago
        return compare(open_file(path).answer(x), expected)
