"""The kinds of file that a student is written to."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from kd_lightning.deploy.files import onnx_file, torch_files
from kd_lightning.deploy.files.card import parse
from kd_lightning.deploy.samples import joined, size, split
from kd_lightning.types import StudentCard
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.files import broken_entry
from kd_lightning.utils.seal import is_broken
from kd_lightning.utils.trust import are_programs_trusted


@dataclass(frozen=True)
class Format:
    """One kind of file, with its writer and its own runtime."""

    suffix: str
    write: Callable[[nn.Module, StudentCard, Any, Path], None]
    """Network, card, inputs of the network, file."""
    read: Callable[[Path], tuple[str, Callable[[Any], Any]]]
    needs: tuple[str, ...] = ()
    """Packages of the extra `export`."""
    is_program: bool = False
    """Reading one may run code in it."""


FORMATS = {
    "onnx": Format(".onnx", onnx_file.write, onnx_file.read, onnx_file.NEEDS),
    "pt2": Format(".pt2", torch_files.write_pt2, torch_files.read_pt2, is_program=True),
    "safetensors": Format(".safetensors", torch_files.write_safetensors, torch_files.read_safetensors),
}


def check_installed(what: str, needs: tuple[str, ...], extra: str) -> None:
    """Raise UserError, naming the extra, if a package is missing."""
    if missing := [name for name in needs if importlib.util.find_spec(name) is None]:
        raise UserError(f"{what} needs {', '.join(missing)}: pip install 'kd_lightning[{extra}]'")


@dataclass(frozen=True)
class OpenedFile:
    """A file in its runtime."""

    card: StudentCard
    answer: Callable[[Any], Any]
    """Inputs as the card describes them, of any number of samples, to logits `[B, C]`, by task if there are several."""


def open_file(path: Path) -> OpenedFile:
    """Open a file that `kd_lightning.export` wrote.

    Raises:
        UserError: If it is none, is damaged, or is a program and this is outside `trusting`.
    """
    form = next((f for f in FORMATS.values() if f.suffix == path.suffix), None)
    if form is None or not path.is_file():
        known = ", ".join(f.suffix for f in FORMATS.values())
        raise UserError(f"{path} is neither a run directory nor a file that export wrote ({known})")
    if form.is_program and not are_programs_trusted():
        raise UserError(
            f"{path} is a program, and torch.export.load may run code in it; nothing of it was run. If you trust its "
            "origin, allow it with trust=True, or use .onnx or .safetensors"
        )
    check_installed(str(path), tuple(n for n in form.needs if n == "onnxruntime"), "export")
    try:
        if broken_entry(path) or is_broken(path):
            raise ValueError("its checksum is wrong")
        text, answer = form.read(path)
        card = parse(text)
        batch = card.extra["batch"]
    except UserError:
        raise
    except Exception as e:  # whatever the runtimes raise
        raise UserError(f"{path} is damaged or was not written by kd_lightning ({_first_line(e)})") from e

    @torch.no_grad()
    def run(x: Any) -> Any:
        return joined([answer(few) for few in split(x, batch or max(1, size(x)))])

    return OpenedFile(card, run)


def _first_line(e: Exception) -> str:
    return (str(e).strip() or type(e).__name__).splitlines()[0][:120]
