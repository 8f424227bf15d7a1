"""Shares of a training step's time: data, student, teacher, optimizer."""

import time

import torch


class Stopwatch:
    """Sums seconds by name, from one lap to the next; does nothing while it stands.

    A GPU works behind the CPU's back, so each lap waits for it: let it run in few steps only.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since: float | None = None

    def start(self) -> None:
        self._since = _now()

    def stop(self) -> None:
        self._since = None

    def lap(self, name: str) -> None:
        """Add the time since the last lap to `name`."""
        if self._since is None:
            return
        now = _now()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._since
        self._since = now

    def shares(self) -> dict[str, float]:
        """Fractions of the time measured, which sum to 1; empty if none was."""
        total = sum(self.seconds.values())
        return {name: seconds / total for name, seconds in self.seconds.items()} if total else {}


def _now() -> float:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()
