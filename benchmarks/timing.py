"""Two ways of the same work, timed in turns."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Ratio:
    """Medians of A and B in seconds (or whatever the sides return), and A / B of the medians and of the minima."""

    median: float
    minimum: float
    a: float
    b: float


def in_turns(a: Callable[[], float], b: Callable[[], float], repeats: int) -> Ratio:
    """A B A B …: what slows the machine down for a while slows both. Each side returns its own seconds."""
    times = [(a(), b()) for _ in range(repeats)]
    first, second = [t[0] for t in times], [t[1] for t in times]
    middle = statistics.median(first), statistics.median(second)
    return Ratio(middle[0] / middle[1], min(first) / min(second), *middle)


def wait(device: torch.device) -> None:
    """Until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize()
