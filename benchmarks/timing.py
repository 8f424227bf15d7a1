"""Two ways of the same work, timed in turns."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ratio:
    """Median and quartiles of the pairs' A / B, A / B of the minima, and the median of each side."""

    median: float
    quartiles: tuple[float, float]
    minimum: float
    a: float
    b: float

    def rates(self) -> str:
        """Return the images per second of both sides, which return seconds per image."""
        return f"{1 / self.a:,.0f} against {1 / self.b:,.0f} images/s"


def in_turns(a: Callable[[], float], b: Callable[[], float], repeats: int) -> Ratio:
    """Time A B A B …, so that what slows the machine down slows both. Each side returns its own seconds."""
    times = [(a(), b()) for _ in range(repeats)]
    first, second, ratios = [t[0] for t in times], [t[1] for t in times], sorted(a / b for a, b in times)
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive") if repeats > 1 else 3 * ratios
    return Ratio(middle, (low, high), min(first) / min(second), statistics.median(first), statistics.median(second))


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def matmul_tflops(device: torch.device, dtype: torch.dtype, times: int = 10) -> float:
    """Return the rate of a large matrix product in 10¹² operations a second: the best that the device reaches."""
    n = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    wait(device)
    start = time.perf_counter()
    for _ in range(times):
        a @ b
    wait(device)
    return 2 * n**3 * times / (time.perf_counter() - start) / 1e12
