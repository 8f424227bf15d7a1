"""Trainings as processes of their own that begin in milliseconds: forks of one that has imported everything."""

import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

import kd_lightning.evaluate
import kd_lightning.training.run  # noqa: F401  # what a command would import
from kd_lightning.train import main


class Ended(NamedTuple):
    """What a process left behind."""

    status: int
    """Exit status; 128 + the signal's number of one that a signal ended."""
    out: str
    """What it printed, errors included."""


class Process:
    """`kd-train` with `words`, or another `command`, run in `folder`."""

    def __init__(self, folder: Path, words: Sequence[str], command: Callable[[], None] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / f"output{time.monotonic_ns()}.txt"
        self._log.touch()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run(folder, words, self._log, command or main)
        self._status: int | None = None

    def is_over(self) -> bool:
        """Return whether it has ended."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = status
        return self._status is not None

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Send a signal, if it still runs."""
        if not self.is_over():
            os.kill(self.pid, signum)

    def kill_one(self, random_numbers: random.Random) -> None:
        """Send SIGKILL to one of its processes, whichever."""
        with suppress(ProcessLookupError):
            os.kill(random_numbers.choice(session(self.pid) or [self.pid]), signal.SIGKILL)

    def left(self, seconds: float = 60) -> list[int]:
        """Return those of its processes that are still there so long after its end."""
        deadline = time.monotonic() + seconds
        while (there := session(self.pid)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return there

    def wait(self, seconds: float = 900) -> Ended:
        """Return how it ended. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not self.is_over():
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(self._log.read_text())
            time.sleep(0.01)
        text = self._log.read_text() if self._log.exists() else ""
        self._log.unlink(missing_ok=True)
        code = os.waitstatus_to_exitcode(self._status or 0)
        return Ended(code if code >= 0 else 128 - code, text)


def session(pid: int) -> list[int]:
    """Return the processes, zombies aside, of the session that `pid` has begun."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if int(session) == pid and state not in "ZX":
                found.append(int(path.parent.name))
    return sorted(found)


def _run(folder: Path, words: Sequence[str], log: Path, command: Callable[[], None]) -> None:
    """Become the command; never returns."""
    status = 70
    try:
        os.setsid()
        sys.modules["__main__"].__spec__ = importlib.util.find_spec("kd_lightning.train")  # what Lightning repeats
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        out = os.open(log, os.O_WRONLY)
        null = os.open(os.devnull, os.O_RDONLY)
        for new, old in ((null, 0), (out, 1), (out, 2)):
            os.dup2(new, old)
        sys.stdout, sys.stderr = (os.fdopen(fd, "w", closefd=False) for fd in (1, 2))
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(folder)
        torch.set_num_threads(1)
        sys.argv = ["kd-train", *words]
        try:
            command()
            status = 0
        except SystemExit as e:
            status = e.code if isinstance(e.code, int) else 0 if e.code is None else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
