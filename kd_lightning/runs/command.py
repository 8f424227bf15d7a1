"""What all processes of one command know of it: its time stamp, what was typed, the sweep whose jobs they run.

Hydra hands its singletons to the jobs of every launcher, on whatever machine they run.
"""

import secrets
import sys
import time
from dataclasses import dataclass
from typing import Any

from hydra.core.singleton import Singleton

from kd_lightning.utils.distributed import is_started_by_launcher, tell
from kd_lightning.utils.quiet import quiet


@dataclass(frozen=True)
class Sweep:
    """The sweep that a job belongs to."""

    keys: tuple[str, ...]
    """Keys that differ between its runs."""
    runs: int | None
    """Number of runs; None for a sweeper that decides as it goes."""
    folder: str = ""
    """Its `hydra.sweep.dir`."""
    in_turn: bool = True
    """One run after the other in this process; false for a launcher that runs several at once."""


class Command(metaclass=Singleton):
    """The command that this process, or the one that launched it, was given: `Command()` returns the only one."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget the command before, where one process runs several."""
        self.words = sys.argv[1:]
        self.sweep: Sweep | None = None
        self.has_told_time = False
        """Whether somebody has said how long the sweep takes."""
        self._stamp = ""

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        quiet()  # the process of a job is quiet, too

    def stamp(self) -> str:
        """Return date, time and 8 random digits: the same on all ranks, in all jobs, and whenever it is asked."""
        if not self._stamp:
            made = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{secrets.token_hex(4)}"
            self._stamp = tell("stamp", lambda: made) if is_started_by_launcher() else made
        return self._stamp
