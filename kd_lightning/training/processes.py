"""The processes that Lightning starts for several devices: watched, ended together, and one folder for all."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies.launchers import subprocess_script

from kd_lightning import runs
from kd_lightning.runs.command import Command
from kd_lightning.utils.checks import LostProcess, UserError
from kd_lightning.utils.distributed import is_started_by_launcher, rank_name
from kd_lightning.utils.signals import stop, stop_if_asked

GRACE = 20.0
"""Seconds that a process has to notice that another one is gone, before it is ended."""
SHARED_WITHIN = 30.0
"""Seconds within which a network file system shows a file of another machine."""

_watches: list["_Watch"] = []


class _Watch(threading.Thread):
    """Looks after the processes that this one has started.

    Lightning's own ends the whole program by SIGKILL when one of them is gone, and with it a sweep. This one leaves the
    main thread time to raise an error, which most collectives do when their peer is gone.
    """

    def __init__(self, children: list[subprocess.Popen[bytes]]) -> None:
        super().__init__(daemon=True, name="watch over ranks")
        self.children, self.lost = children, ""
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.2):
            codes = [child.poll() for child in self.children]
            if all(code == 0 for code in codes):
                return
            for rank, code in enumerate(codes, 1):
                if code:
                    self._end(rank, code)
                    return

    def _end(self, rank: int, code: int) -> None:
        name = signal.Signals(-code).name if code < 0 else f"status {code}"
        hint = "; SIGKILL is often the system's, out of memory" if name == "SIGKILL" else ""
        self.lost = f"process {self.children[rank - 1].pid}, rank {rank} of the training, ended with {name}{hint}"
        if self.over.wait(GRACE):
            return
        print(f"error: {self.lost}; this process waits for it in vain and ends, too", file=sys.stderr, flush=True)
        end(self.children)
        os._exit(1)


def watch_children() -> None:
    """Let the processes that Lightning starts from now on be watched by this module, not by Lightning's observer."""

    def watch(children: list[subprocess.Popen[bytes]]) -> None:
        _watches.append(_Watch(children))
        _watches[-1].start()

    subprocess_script._launch_process_observer = watch  # type: ignore[assignment]


def _lost() -> str:
    return next((watch.lost for watch in _watches if watch.lost), "")


@contextmanager
def ending_children() -> Iterator[None]:
    """Let no process that is started inside outlive it.

    Raises:
        LostProcess: In place of the error that one of them caused by ending before its time.
    """
    try:
        yield
        for child in (child for watch in _watches for child in watch.children):
            with suppress(subprocess.TimeoutExpired):
                child.wait(GRACE)
    except UserError:
        raise
    except Exception as e:
        deadline = time.monotonic() + 2
        while _watches and not _lost() and time.monotonic() < deadline:  # the peer's error may come before its end
            time.sleep(0.1)
        if message := _lost():
            raise LostProcess(f"{message}; go on with the same command, or resume=<run directory>") from e
        raise
    finally:
        for watch in _watches:
            watch.over.set()
            end(watch.children)
            watch.join()
        _watches.clear()


def end(children: list[subprocess.Popen[bytes]]) -> None:
    """Ask the processes to end, and kill those that do not within ten seconds."""
    for child in children:
        with suppress(OSError):
            child.terminate()
    deadline = time.monotonic() + 10
    for child in children:
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


class OneFolder(pl.Callback):
    """Raises UserError on every rank if one of them does not see the run directory, instead of waiting for ever."""

    def __init__(self, out: Path) -> None:
        self._out, self._checked = out, False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._checked or trainer.world_size == 1:
            return
        self._checked = True
        deadline = time.monotonic() + SHARED_WITHIN
        while not (seen := (self._out / runs.CONFIG).is_file()) and time.monotonic() < deadline:
            time.sleep(0.2)
        if not trainer.strategy.reduce_boolean_decision(seen, all=True):
            who = "another rank" if seen else f"rank {rank_name()}"
            raise UserError(
                f"{who} does not see the run directory {self._out.resolve()} of rank 0; hydra.run.dir must lie on a "
                "disk that all machines share"
            )


class EndsWhenAsked(pl.Callback):
    """Ends a training that a signal asked to end, if what its handler raised was lost on the way."""

    def on_train_batch_start(self, *_: Any) -> None:
        stop_if_asked()

    def on_validation_batch_start(self, *_: Any) -> None:
        stop_if_asked()

    def on_test_batch_start(self, *_: Any) -> None:
        stop_if_asked()


def check_launcher(devices: Any) -> None:
    """Raise UserError where Lightning cannot start a process for each device: in a process of Hydra's launcher."""
    sweep = Command().sweep
    if sweep is None or sweep.in_turn or is_started_by_launcher() or devices in (1, "1", [0]):
        return
    raise UserError(
        f"trainer.devices={devices}: a run of this hydra/launcher has one process; leave out hydra/launcher, or on "
        f"SLURM add hydra.launcher.tasks_per_node={devices}"
    )


def leave_signals_to_others(trainer: Any) -> None:
    """Let SIGTERM do in a training what it does outside: end it where it is, or what the program that started it wants.

    Lightning's own handler waits for the end of a batch, and exits with 0. submitit, which starts jobs on SLURM, has a
    handler that does nothing: a job that ended in the grace period of a preemption would not be queued again. At
    SIGUSR1 Lightning would put a job of SLURM back into the queue; that, too, is up to what started it.
    """
    alone = signal.getsignal(signal.SIGTERM) in (None, signal.SIG_DFL)
    trainer._signal_connector._sigterm_notifier_fn = stop if alone else _do_nothing
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment):
        environment.auto_requeue = False


def _do_nothing(signum: int, frame: Any) -> None:
    """Leave a signal to the handlers that were there before."""
