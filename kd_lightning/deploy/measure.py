"""The numbers of the deployment table: one model in one runtime is one row."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning import runs
from kd_lightning.deploy.files.about import describe, dump
from kd_lightning.deploy.files.formats import open_file
from kd_lightning.deploy.files.network import Network
from kd_lightning.deploy.files.write import export
from kd_lightning.deploy.memory import peak_memory
from kd_lightning.deploy.quantization.integer_graph import is_quantized
from kd_lightning.deploy.source import Source
from kd_lightning.models import count_macs, count_parameters
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say
from kd_lightning.utils.latency import latency
from kd_lightning.utils.quiet import unlogged

RUNTIMES = ("eager", "compiled", "onnx", "pt2", "torchscript")
BATCH = 64


@dataclass(frozen=True)
class Row:
    """One model in one runtime."""

    model: str
    runtime: str
    accuracy: float
    """On test, in [0, 1], of what the runtime itself says."""
    parameters: int
    macs: int
    """Of one image."""
    bytes: int
    """Of the file; of its weights in safetensors for eager and compiled."""
    memory: int | None
    """Bytes of a process that answers single images, at most; None if unknown."""
    median_ms: float
    """Of batches of one."""
    p95_ms: float
    images_per_second: float
    """In batches of BATCH."""


def measure(label: str, source: Source, runtimes: Sequence[str], folder: Path, images: int | None) -> Iterator[Row]:
    """A row for each of `runtimes` that has kernels for the student; files are written to `folder`.

    `images` test images are asked for the accuracy; None: all.
    """
    x, y = source.images("test", images or len(source.data.splits["test"]))
    size = source.about["image_size"]
    common = {"parameters": count_parameters(source.student), "macs": count_macs(source.student, size)}
    for runtime in runtimes:
        if is_quantized(source.student) and runtime != "onnx":
            continue  # PyTorch simulates the integers
        try:
            path, answer = _runtime(runtime, source, folder / f"{label}-{runtime}".replace("/", "-"))
            layout = torch.channels_last if runtime in ("eager", "compiled") else torch.contiguous_format
            one, many = (latency(answer, x[0], n, layout) for n in (1, BATCH))
            accuracy = _accuracy(answer, x, y)
        except UserError as e:
            say(f"{label} in {runtime}: left out: {e}")
            continue
        yield Row(
            label,
            runtime,
            accuracy,
            **common,
            bytes=path.stat().st_size,
            memory=None if runtime == "compiled" else peak_memory(runtime, path, size),
            median_ms=one["median_ms"],
            p95_ms=one["p95_ms"],
            images_per_second=many["images_per_second"],
        )


def _runtime(runtime: str, source: Source, stem: Path) -> tuple[Path, Callable[[Tensor], Tensor]]:
    if runtime not in ("eager", "compiled"):
        path, _ = export(source, runtime, stem.with_name(f"{stem.name}.{runtime}"), dynamic_batch=True)
        return path, open_file(path).answer
    path, size = stem.with_name(f"{stem.name}.safetensors"), source.about["image_size"]
    about = describe(source.about, preprocessing=False, precision="fp32", batch=None)
    model: nn.Module = Network(copy.deepcopy(source.student).float(), about)
    runs.save_weights(path, model.student, {"kd_lightning": dump(about)})  # type: ignore[arg-type]
    model = model.eval().to(memory_format=torch.channels_last)
    if runtime == "eager":
        return path, model
    compiled: Any = torch.compile(model, dynamic=False)
    try:
        torch.compiler.reset()  # another model is no reason to compile for any shape
        with torch.inference_mode(), unlogged():
            for batch in (1, BATCH):
                compiled(torch.zeros(batch, 3, size, size).contiguous(memory_format=torch.channels_last))
    except Exception as e:  # most often there is no C++ compiler
        raise UserError(f"torch.compile failed ({type(e).__name__}); is there a C++ compiler?") from e
    return path, compiled


@torch.inference_mode()
def _accuracy(answer: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """In batches of BATCH, the last one filled up: a compiled model has a shape."""
    right = 0
    for images, labels in zip(x.split(BATCH), y.split(BATCH), strict=True):
        filled = torch.cat([images, images.new_zeros(BATCH - len(images), *images.shape[1:])])
        right += int((answer(filled)[: len(labels)].argmax(1) == labels).sum())
    return right / len(y)
