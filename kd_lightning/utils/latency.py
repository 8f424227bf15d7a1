"""Latency of a model."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

BATCHES = (1, 64)
WARM_UP = 0.2  # seconds: caches, clock rates, and the kernels that cuDNN tries out
SECONDS = 1.0  # of measuring, or until MOST runs
FEWEST, MOST = 20, 500


@torch.inference_mode()
def latency(
    answer: Callable[[Any], Any], x: Any, batch_size: int, layout: torch.memory_format = torch.channels_last
) -> dict[str, Any]:
    """Measure how long `answer(x)` takes, one batch after the other.

    Args:
        answer: The model.
        x: Inputs of `batch_size` samples on the model's device: a tensor, or any nesting of tensors.
        batch_size: Number of samples.
        layout: Memory format of tensors with four dimensions.

    Returns:
        `median_ms` and `p95_ms` of `runs` after a warm-up, and `samples_per_second` at the median.
    """
    x = tree_map(lambda t: t.contiguous(memory_format=layout) if t.dim() == 4 else t.contiguous(), x)
    _repeat(answer, x, WARM_UP, 3)
    times = torch.tensor(_repeat(answer, x, SECONDS, FEWEST), dtype=torch.float64)
    median, p95 = times.quantile(torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
    return {
        "median_ms": 1000 * median,
        "p95_ms": 1000 * p95,
        "runs": len(times),
        "samples_per_second": batch_size / median,
    }


def _repeat(answer: Callable[[Any], Any], x: Any, seconds: float, fewest: int) -> list[float]:
    """Return the seconds of each run: `fewest` at least, then until `seconds` are over or there are MOST."""
    first: Tensor = tree_leaves(x)[0]
    times: list[float] = []
    while len(times) < fewest or (sum(times) < seconds and len(times) < MOST):
        _wait(first.device)
        started = time.perf_counter()
        answer(x)
        _wait(first.device)
        times.append(time.perf_counter() - started)
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
