"""A student into a file that was read back and compared before it has its name."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.images.normalize import Normalize
from kd_lightning.deploy.files.about import PIXELS, describe
from kd_lightning.deploy.files.formats import FORMATS, check_installed, open_file
from kd_lightning.deploy.files.network import Network
from kd_lightning.deploy.files.parity import TOLERANCE, Parity, compare
from kd_lightning.deploy.quantization.integer_graph import integer_graph, is_quantized
from kd_lightning.deploy.source import Source
from kd_lightning.utils.checks import UserError, choice, number
from kd_lightning.utils.quiet import unlogged

IMAGES = 256
"""Test images on which file and student are compared."""


def export(
    source: Source,
    form: str,
    out: Path | None = None,
    *,
    dynamic_batch: bool = False,
    fp16: bool = False,
    preprocessing: bool = False,
    tolerance: float | None = None,
    force: bool = False,
) -> tuple[Path, Parity]:
    """Writes the student of `source`; returns the file and how well it agrees with PyTorch.

    `out` is by default in the run directory. `tolerance` is the largest difference of a logit. Raises UserError, and
    leaves no file, if something is missing, cannot be exported or differs by more.
    """
    choice("--format", form, list(FORMATS))
    check_installed(f"--format {form}", FORMATS[form].needs, "export")
    quantized = is_quantized(source.student)
    _check(form, quantized, fp16, preprocessing)
    precision = "int8" if quantized else "fp16" if fp16 else "fp32"
    about = describe(source.about, preprocessing=preprocessing, precision=precision, batch=None if dynamic_batch else 1)
    if form == "safetensors":
        about["batch"] = None
    path = out or source.path / f"model{'-fp16' if fp16 else ''}{FORMATS[form].suffix}"
    if path.suffix != FORMATS[form].suffix:
        raise UserError(f"--out: a file of --format {form} ends in {FORMATS[form].suffix}, got {path}")
    if path.exists() and not force:
        raise UserError(f"{path} exists; write over it with --force, or choose another with --out")
    most, least = TOLERANCE[precision]
    if tolerance is not None:
        most = number("--tolerance", tolerance, above=0)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        _make(partial, form, source, about)
        parity = _compare(partial, source, about)
        if not parity.within(most, least):
            raise UserError(
                f"{path} is not kept: it differs from PyTorch {parity}; at most {most:g} and at least {least:.1%} "
                "are allowed (--tolerance)"
            )
        partial.replace(path)
    except OSError as e:
        raise UserError(f"cannot write {path}: {e.strerror or e}; choose another file with --out") from e
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return path, parity


def _check(form: str, quantized: bool, fp16: bool, preprocessing: bool) -> None:
    if quantized and form in ("pt2", "torchscript"):
        raise UserError(
            f"--format {form}: PyTorch would run an int8 student in floats; export it as onnx, which runs in integers"
        )
    if quantized and fp16:
        raise UserError("--fp16: the student is quantized to int8 already")
    if preprocessing and form == "safetensors":
        raise UserError("--with-preprocessing: safetensors holds weights alone; use onnx, pt2 or torchscript")


def _make(path: Path, form: str, source: Source, about: dict[str, Any]) -> None:
    student = source.again().to(memory_format=torch.contiguous_format)
    if is_quantized(student) and form == "onnx":
        student = integer_graph(student)
    path.touch(exist_ok=False)  # an unwritable place is found before the work
    try:
        with unlogged():
            FORMATS[form].write(Network(student, about).eval(), about, path)
    except OSError:
        raise
    except Exception as e:  # whatever an exporter raises about an operator
        raise UserError(f"--format {form}: {source.about['name']} cannot be exported: {_reason(e)}") from e


def _reason(e: BaseException) -> str:
    """The innermost cause, in one line."""
    while e.__cause__ is not None:
        e = e.__cause__
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    return (lines[0] if lines else type(e).__name__)[:200]


@torch.no_grad()
def _compare(path: Path, source: Source, about: dict[str, Any]) -> Parity:
    x, _ = source.images("test", IMAGES)
    student = source.student.eval().float().cpu()
    expected = torch.cat([student(part) for part in x.split(64)])
    images = to_pixels(x, about) if about["input"] == PIXELS else x
    return compare(open_file(path).answer(images), expected)


def to_pixels(x: Tensor, about: dict[str, Any]) -> Tensor:
    """Normalized images `[B, 3, H, W]` back to the uint8 `[B, H, W, 3]` that they were made of."""
    mean, std = (torch.tensor(values) for values in Normalize.parse(about["normalize"]))
    return ((x.permute(0, 2, 3, 1) * std + mean) * 255).round().clamp(0, 255).to(torch.uint8).contiguous()
