"""Shares of a training step's time: data, student, teacher, optimizer."""

import time

import torch


class Stopwatch:
    """Sums seconds by name, from one lap to the next; does nothing while it stands.

    A GPU works behind the CPU's back, so each lap waits for it: let it run in few steps only, each with the number of
    steps that it stands for.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since: float | None = None
        self._paused = 0.0
        self._steps = 1.0

    def start(self, steps: float = 1) -> None:
        """Run from now on; each lap counts `steps` times."""
        self._since, self._steps = now(), steps

    def pause(self) -> None:
        """Leave out the time until `go_on`."""
        if self._since is not None:
            self._paused = now()

    def go_on(self) -> None:
        if self._since is not None:
            self._since += now() - self._paused

    def stop(self) -> None:
        self._since = None

    def lap(self, name: str) -> None:
        """Add the time since the last lap to `name`, once for each step that it stands for."""
        if self._since is None:
            return
        at = now()
        self.seconds[name] = self.seconds.get(name, 0.0) + (at - self._since) * self._steps
        self._since = at

    def shares(self) -> dict[str, float]:
        """Fractions of the time measured, which sum to 1; empty if none was."""
        total = sum(self.seconds.values())
        return {name: seconds / total for name, seconds in self.seconds.items()} if total else {}


def now() -> float:
    """Return seconds of a clock, once a GPU has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()
