"""Rows of the deployment table: one model in one runtime."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from kd_lightning.deploy.files.card import file_card
from kd_lightning.deploy.files.formats import FORMATS
from kd_lightning.deploy.files.network import Network
from kd_lightning.deploy.files.write import export
from kd_lightning.deploy.memory import peak_memory
from kd_lightning.deploy.quantization.integer_graph import is_quantized
from kd_lightning.deploy.samples import repeat, samples, size, split
from kd_lightning.evaluation.opened import OpenedRun
from kd_lightning.models import count_macs, count_parameters
from kd_lightning.runs.students import save_weights
from kd_lightning.types import part
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say
from kd_lightning.utils.latency import latency
from kd_lightning.utils.names import slug
from kd_lightning.utils.quiet import unlogged

RUNTIMES = ("eager", "compiled", "onnx", "pt2")
BATCH = 64


@dataclass(frozen=True)
class Row:
    """One model in one runtime."""

    model: str
    runtime: str
    accuracy: float
    """On test samples, in [0, 1], of the runtime's own answers; the mean of several tasks."""
    parameters: int
    macs: int
    """Multiply-accumulates of one sample."""
    bytes: int
    """Size of the file; for eager and compiled, of the weights in safetensors."""
    memory: int | None
    """Peak bytes of a process that answers single samples; None if unknown."""
    median_ms: float
    """Milliseconds of a batch of one sample."""
    p95_ms: float
    samples_per_second: float
    """Samples per second in batches of BATCH."""
    accuracies: Mapping[str, float] = field(default_factory=dict)
    """Accuracy by task, if there are several."""


def measure(
    label: str, run: OpenedRun, runtimes: Sequence[str], folder: Path, count: int | None = None
) -> Iterator[Row]:
    """Yield a row for each of `runtimes` that has kernels for the student.

    Args:
        label: Name of the model in the rows.
        run: The run, whose deployed student is measured.
        runtimes: Some of `RUNTIMES`.
        folder: Place for the files.
        count: Number of test samples for the accuracy; None for all.
    """
    x, y = samples(run.data, "test", count)
    one = run.data.example(1)
    common = {"parameters": count_parameters(run.student), "macs": count_macs(run.student, one)}
    for runtime in runtimes:
        if is_quantized(run.student) and runtime != "onnx":
            continue  # PyTorch simulates the integers
        try:
            path, answer = _runtime(runtime, run, folder / f"{slug(label)}-{runtime}")
            layout = torch.channels_last if runtime in ("eager", "compiled") else torch.contiguous_format
            single, many = (latency(answer, repeat(one, n), n, layout) for n in (1, BATCH))
            right = _accuracies(answer, x, y)
        except UserError as e:
            say(f"{label} in {runtime}: left out: {e}")
            continue
        yield Row(
            label,
            runtime,
            sum(right.values()) / len(right),
            **common,
            bytes=path.stat().st_size,
            memory=None if runtime == "compiled" else peak_memory(runtime, path, one),
            median_ms=single["median_ms"],
            p95_ms=single["p95_ms"],
            samples_per_second=many["samples_per_second"],
            accuracies={task: share for task, share in right.items() if task},
        )


def _runtime(runtime: str, run: OpenedRun, stem: Path) -> tuple[Path, Callable[[Any], Any]]:
    if runtime not in ("eager", "compiled"):
        path, _ = export(run, runtime, stem.with_name(f"{stem.name}.{runtime}"), dynamic_batch=True)
        _, answer = FORMATS[runtime].read(path)  # as it is, without what `open_file` adds: that takes time of its own
        return path, torch.no_grad()(answer)
    path, one = stem.with_name(f"{stem.name}.safetensors"), run.data.example(1)
    card = file_card(run.card, one)
    network = Network(copy.deepcopy(run.student).float(), card)
    save_weights(path, network.student, card)
    model: nn.Module = network.eval().to(memory_format=torch.channels_last)
    if runtime == "eager":
        return path, model
    compiled: Any = torch.compile(model, dynamic=False)
    try:
        torch.compiler.reset()  # another model is no reason to compile for any shape
        with torch.inference_mode(), unlogged():
            for batch in (1, BATCH):
                compiled(_channels_last(repeat(one, batch)))
    except Exception as e:  # most often there is no C++ compiler
        raise UserError(f"torch.compile failed ({type(e).__name__}); is there a C++ compiler?") from e
    return path, compiled


def _channels_last(x: Any) -> Any:
    return tree_map(lambda t: t.contiguous(memory_format=torch.channels_last) if t.dim() == 4 else t, x)


@torch.inference_mode()
def _accuracies(answer: Callable[[Any], Any], x: Any, y: Any) -> dict[str, float]:
    """Return the accuracy by task, in batches of BATCH, the last one filled up: a compiled model has a shape."""
    tasks = tuple(y) if isinstance(y, Mapping) else ("",)
    right, known = dict.fromkeys(tasks, 0), dict.fromkeys(tasks, 0)
    for inputs, labels in zip(split(x, BATCH), split(y, BATCH), strict=True):
        missing = BATCH - size(inputs)
        filled = tree_map(lambda t, n=missing: torch.cat([t, t.new_zeros(n, *t.shape[1:])]), inputs)
        said = answer(filled)
        for task in tasks:
            own = part(labels, task)
            right[task] += int((part(said, task)[: len(own)].argmax(1) == own).sum())
            known[task] += len(own)
    return {task: right[task] / known[task] for task in tasks}
