"""Latency of single samples in turns: `python -m benchmarks.deployment RUN …`, each with its exported `model.onnx`.

`kd_lightning.measure` times one model after the other; on a machine that is shared, ratios want turns. One thread each.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from kd_lightning.cli import clear_errors
from kd_lightning.deploy.files.onnx_file import read
from kd_lightning.deploy.quantization.integer_graph import is_quantized
from kd_lightning.runs.students import load_student

ROUNDS, TIMES, WARM_UP = 40, 25, 3


def main() -> None:
    """Print a table with one row for each runtime of each run."""
    torch.set_num_threads(1)
    works: dict[str, Callable[[], object]] = {}
    for path in map(Path, sys.argv[1:]):
        student, card = load_student(path)
        size = card.inputs["image_size"]
        image = torch.randn(1, 3, size, size)
        if not is_quantized(student):  # in PyTorch its rounding is only simulated
            works[f"{path.name} eager"] = _eager(student, image)
        works[f"{path.name} onnxruntime"] = _onnx(path / "model.onnx", image)
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


def _eager(student: nn.Module, image: Tensor) -> Callable[[], object]:
    student = student.to(memory_format=torch.channels_last)
    image = image.contiguous(memory_format=torch.channels_last)
    return lambda: student(image)


def _onnx(path: Path, image: Tensor) -> Callable[[], object]:
    _, answer = read(path)
    return lambda: answer(image)


def _times(work: Callable[[], object]) -> list[float]:
    """Return the milliseconds of each call, without the first ones of a turn."""
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
