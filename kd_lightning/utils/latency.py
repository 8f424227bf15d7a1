"""How long an answer takes."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

BATCHES = (1, 64)
WARM_UP = 0.2  # seconds: caches, clock rates, and the kernels that cuDNN tries out
SECONDS = 1.0  # of measuring, or until MOST runs
FEWEST, MOST = 20, 500


@torch.inference_mode()
def latency(
    answer: Callable[[Tensor], Tensor],
    image: Tensor,
    batch_size: int,
    layout: torch.memory_format = torch.channels_last,
) -> dict[str, Any]:
    """Milliseconds that `answer` takes for a batch of `image` `[3, H, W]` on its device, one batch after the other.

    Returns `median_ms` and `p95_ms` of `runs` after a warm-up, and `images_per_second` at the median.
    """
    x = image.expand(batch_size, -1, -1, -1).contiguous(memory_format=layout)
    _repeat(answer, x, WARM_UP, 3)
    times = torch.tensor(_repeat(answer, x, SECONDS, FEWEST), dtype=torch.float64)
    median, p95 = times.quantile(torch.tensor([0.5, 0.95], dtype=torch.float64)).tolist()
    return {
        "median_ms": 1000 * median,
        "p95_ms": 1000 * p95,
        "runs": len(times),
        "images_per_second": batch_size / median,
    }


def _repeat(answer: Callable[[Tensor], Tensor], x: Tensor, seconds: float, fewest: int) -> list[float]:
    """Seconds of each run: `fewest` at least, then until `seconds` are over or there are MOST."""
    times: list[float] = []
    while len(times) < fewest or (sum(times) < seconds and len(times) < MOST):
        _wait(x.device)
        started = time.perf_counter()
        answer(x)
        _wait(x.device)
        times.append(time.perf_counter() - started)
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
