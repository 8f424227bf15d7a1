"""Long trainings and long sweeps in one process: memory, descriptors, threads and step time must stay flat.

`python -m tests.chaos.endurance [--epochs 2000] [--runs 50]`: tiny trainings on digits. Each series is measured after
its first tenth and at its end; more than 5 % of growth is a fault. Time is the processor's, of all threads: other work
on the machine does not count.
"""

import argparse
import gc
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl

from kd_lightning.training import run as training
from kd_lightning.utils.trust import trusting
from tests.conftest import compose

SMALL = ("loss=ce", "data.train_size=64", "data.batch_size=32", "data.eval_batch_size=360")


class State(NamedTuple):
    """What the process holds, and how fast it is."""

    megabytes: float
    descriptors: int
    threads: int
    milliseconds: float
    """Processor time of an epoch or of a run, median of the last ones."""


def state(milliseconds: float) -> State:
    """Return the state of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    megabytes = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return State(megabytes, len(os.listdir("/proc/self/fd")), threading.active_count(), milliseconds)


class Clock(pl.Callback):
    """Takes the state after a tenth of the epochs and after the last."""

    def __init__(self, epochs: int) -> None:
        self._epochs, self._times, self._since = epochs, list[float](), time.process_time()
        self.states: list[State] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.process_time()
        self._times.append(1000 * (now - self._since))
        self._since = now
        if len(self._times) in (self._epochs // 10, self._epochs):
            self.states.append(state(statistics.median(self._times[-max(5, self._epochs // 20) :])))


def epochs(count: int, folder: Path) -> list[State]:
    """Return the states of one training of so many epochs."""
    clock, build = Clock(count), training.build_trainer

    def with_clock(*args: Any, **kwargs: Any) -> Any:
        trainer, log = build(*args, **kwargs)
        trainer.callbacks.insert(0, clock)
        return trainer, log

    training.build_trainer = with_clock
    try:
        training.train(compose(*SMALL, f"trainer.max_epochs={count}"), folder)
    finally:
        training.build_trainer = build
    return clock.states


def sweep(count: int, folder: Path) -> list[State]:
    """Return the states of so many trainings, one after the other."""
    times, states = list[float](), list[State]()
    for n in range(count):
        began = time.process_time()
        training.train(compose(*SMALL, f"seed={n}"), folder / str(n))
        times.append(1000 * (time.process_time() - began))
        if n + 1 in (max(2, count // 10), count):
            states.append(state(statistics.median(times[-max(2, count // 10) :])))
    return states


def main() -> int:
    """Return the exit status: 1 if anything has grown."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.endurance", description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=int, default=2000)
    parser.add_argument("--runs", type=int, default=50)
    args = parser.parse_args()
    status = 0
    with tempfile.TemporaryDirectory() as place, trusting():
        for name, states in (
            (f"{args.epochs} epochs", epochs(args.epochs, Path(place, "long"))),
            (f"{args.runs} runs", sweep(args.runs, Path(place, "sweep"))),
        ):
            early, late = states
            print(f"{name}: after a tenth {early}\n{' ' * len(name)}  at the end  {late}", flush=True)
            grown = [key for key in State._fields if getattr(late, key) > 1.05 * getattr(early, key)]
            if grown:
                print(f"grown by more than 5 %: {', '.join(grown)}")
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
