"""Latency of single images in turns: `python -m benchmarks.deployment RUN …`, each with the `model.onnx` of its export.

`kd_lightning.measure` times one model after the other; on a machine that is shared, ratios want turns. One thread each.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table

from kd_lightning import runs
from kd_lightning.cli import clear_errors
from kd_lightning.deploy.quantization.integer_graph import is_quantized

ROUNDS, TIMES, WARM_UP = 40, 25, 3
IMAGE = torch.randn(1, 3, 32, 32)


def main() -> None:
    torch.set_num_threads(1)
    works: dict[str, Callable[[], object]] = {}
    for path in map(Path, sys.argv[1:]):
        student, _ = runs.load_student(path)
        if not is_quantized(student):  # in PyTorch its rounding is only simulated
            works[f"{path.name} eager"] = _eager(student)
        works[f"{path.name} onnxruntime"] = _onnx(path / "model.onnx")
    milliseconds: dict[str, list[float]] = {name: [] for name in works}
    with torch.inference_mode():
        for _ in range(ROUNDS):
            for name, work in works.items():
                milliseconds[name] += _times(work)
    table = Table("", "10th percentile, ms", "median, ms", "first / this, 10th percentile", "median")
    first = np.quantile(next(iter(milliseconds.values())), (0.1, 0.5))
    for name, values in milliseconds.items():
        own = np.quantile(values, (0.1, 0.5))
        table.add_row(name, *(f"{v:.2f}" for v in own), *(f"{v:.1f}" for v in first / own))
    Console().print(table)


def _eager(student: torch.nn.Module) -> Callable[[], object]:
    student = student.to(memory_format=torch.channels_last)
    image = IMAGE.contiguous(memory_format=torch.channels_last)
    return lambda: student(image)


def _onnx(path: Path) -> Callable[[], object]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": IMAGE.numpy()})


def _times(work: Callable[[], object]) -> list[float]:
    """Milliseconds of each call, without the first ones of a turn."""
    values = []
    for i in range(WARM_UP + TIMES):
        start = time.perf_counter()
        work()
        if i >= WARM_UP:
            values.append(1000 * (time.perf_counter() - start))
    return values


if __name__ == "__main__":
    with clear_errors():
        main()
