"""The formats that PyTorch itself runs: exported programs (pt2), TorchScript, and weights in safetensors."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor, nn

from kd_lightning.deploy.files.about import FLOAT, KEY, dump
from kd_lightning.deploy.files.network import Network, example

Answer = Callable[[Tensor], Tensor]


def write_pt2(network: nn.Module, about: dict[str, Any], path: Path) -> None:
    """See `onnx_file.write`."""
    shapes = None if about["batch"] else ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        program = torch.export.export(network, (example(about, about["batch"] or 2),), dynamic_shapes=shapes)
    with open(path, "wb") as file:
        torch.export.save(program, file, extra_files={KEY: dump(about)})


def read_pt2(path: Path) -> tuple[str, Answer]:
    """See `onnx_file.read`."""
    extra = {KEY: ""}
    with open(path, "rb") as file:
        program = torch.export.load(file, extra_files=extra)
    return extra[KEY], program.module()


def write_torchscript(network: nn.Module, about: dict[str, Any], path: Path) -> None:
    """See `onnx_file.write`."""
    with torch.no_grad():
        script = torch.jit.freeze(torch.jit.trace(network, example(about, about["batch"] or 2)))
        torch.jit.save(script, str(path), _extra_files={KEY: dump(about)})


def read_torchscript(path: Path) -> tuple[str, Answer]:
    """See `onnx_file.read`."""
    extra = {KEY: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favour of pt2
        script = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
    text: Any = extra[KEY]
    return text.decode() if isinstance(text, bytes) else text, script


def write_safetensors(network: nn.Module, about: dict[str, Any], path: Path) -> None:
    """The student's weights alone."""
    assert isinstance(network, Network)
    state = {name: tensor.detach().contiguous().clone() for name, tensor in network.student.state_dict().items()}
    path.write_bytes(safetensors.torch.save(state, metadata={KEY: dump(about)}))


def read_safetensors(path: Path) -> tuple[str, Answer]:
    """Builds the student again, in float32, around its weights."""
    import json

    from kd_lightning.models import create_model
    from kd_lightning.models.checkpoints import load_weights

    with safe_open(path, "pt") as file:
        text = (file.metadata() or {}).get(KEY, "")
    about = {"input": FLOAT, "precision": "fp32"} | json.loads(text or "{}")
    if "name" not in about:
        return "", lambda images: images
    model = create_model(about["name"], about["num_classes"], image_size=about["image_size"], **about["kwargs"])
    load_weights(model, path, key=str(path))
    return text, Network(model.eval(), about).eval()
