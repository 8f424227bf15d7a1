"""The formats that PyTorch itself runs: exported programs (pt2), and weights in safetensors."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import nn

from kd_lightning.deploy.files.card import dump, dynamic_shapes, parse
from kd_lightning.deploy.files.network import Network
from kd_lightning.deploy.files.recurrent import any_length
from kd_lightning.models.checkpoints import load_weights
from kd_lightning.runs.students import KEY, build_student
from kd_lightning.types import StudentCard
from kd_lightning.utils.seal import seal

Answer = Callable[[Any], Any]


def write_pt2(network: nn.Module, card: StudentCard, example: Any, path: Path) -> None:
    """Write an exported program; see `onnx_file.write`."""
    shapes = dynamic_shapes(card, example)
    with torch.no_grad(), any_length():
        program = torch.export.export(
            network, (example,), dynamic_shapes=None if shapes is None else (shapes,), strict=False
        )
    with open(path, "wb") as file:
        torch.export.save(program, file, extra_files={KEY: dump(card)})


def read_pt2(path: Path) -> tuple[str, Answer]:
    """Open an exported program; see `onnx_file.read`."""
    extra = {KEY: ""}
    with open(path, "rb") as file:
        program = torch.export.load(file, extra_files=extra)
    return extra[KEY], program.module()


def write_safetensors(network: nn.Module, card: StudentCard, example: Any, path: Path) -> None:
    """Write the student's weights alone; see `onnx_file.write`."""
    assert isinstance(network, Network)
    state = {name: tensor.detach().contiguous().clone() for name, tensor in network.student.state_dict().items()}
    path.write_bytes(safetensors.torch.save(state, metadata={KEY: dump(card)}))
    seal(path)


def read_safetensors(path: Path) -> tuple[str, Answer]:
    """Build the student again around its weights; see `onnx_file.read`."""
    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(KEY, "")
    card = parse(text)
    model = build_student(card, str(path))
    load_weights(model, path, key=str(path))
    return text, Network(model.eval(), card).eval()
