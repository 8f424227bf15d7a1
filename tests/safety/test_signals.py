"""A training that a signal ends says so by its status, and how it goes on."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from textwrap import indent
from typing import Any

import lightning.pytorch as pl
import pytest

from kd_lightning import runs
from kd_lightning.cli import clear_errors
from tests.chaos.processes import Process

LONG = ("trainer.max_epochs=3000", "hydra.run.dir=runs/mine")


def wait_for(process: Process, found: Callable[[], bool]) -> None:
    """Wait until `found`, while the process runs."""
    deadline = time.monotonic() + 120
    while not found():
        assert not process.is_over() and time.monotonic() < deadline, process.wait(0).out
        time.sleep(0.02)


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_in_training(start: Callable[..., Process], tmp_path: Path, signum: int, status: int) -> None:
    process = start("loss=ce", *LONG)
    wait_for(process, (tmp_path / "runs/mine" / runs.LAST).exists)
    process.kill(signum)
    ended = process.wait()
    assert ended.status == status and "Traceback" not in ended.out
    assert "go on with: python -m kd_lightning.train resume=runs/mine\n" in ended.out
    assert [p.name for p in (tmp_path / "runs/mine").iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_while_the_teacher_trains(start: Callable[..., Process], tmp_path: Path, signum: int, status: int) -> None:
    process = start("teacher_stage.max_epochs=3000", "trainer.max_epochs=1", "hydra.run.dir=runs/mine")
    wait_for(process, lambda: bool(list(tmp_path.glob("outputs/teachers/*/last.ckpt"))))
    process.kill(signum)
    ended = process.wait()
    assert ended.status == status and "Traceback" not in ended.out
    (command,) = re.findall(r"go on with: (.*)", ended.out)
    assert command == "python -m kd_lightning.train resume=runs/mine", "the run that the user began, not the teacher's"


def test_in_a_sweep(start: Callable[..., Process], tmp_path: Path) -> None:
    process = start("-m", "loss=ce", "seed=0,1", "trainer.max_epochs=3000", "hydra.sweep.dir=my sweep")
    wait_for(process, (tmp_path / "my sweep/0_seed0" / runs.LAST).exists)
    process.kill(signal.SIGTERM)
    ended = process.wait()
    assert ended.status == 143 and not list((tmp_path / "my sweep").glob("1*"))
    (command,) = re.findall(r"go on with: (.*)", ended.out)
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "kd_lightning.train"] and "hydra.sweep.dir='my sweep'" in words


def test_before_the_run_began(start: Callable[..., Process], tmp_path: Path) -> None:
    process = start("loss=ce", *LONG)
    wait_for(process, (tmp_path / "runs/mine").exists)
    process.kill(signal.SIGTERM)
    ended = process.wait()
    assert ended.status == 143 and "Traceback" not in ended.out


def test_a_signal_that_a_library_swallowed_ends_the_training(
    start: Callable[..., Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python drops what is raised in a finalizer, and the handler of a signal runs wherever the program is."""

    def swallow(self: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        with suppress(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        fit(self, *args, **kwargs)

    fit = pl.Trainer.fit
    monkeypatch.setattr(pl.Trainer, "fit", swallow)
    ended = start("loss=ce", *LONG).wait()
    assert ended.status == 143 and not (tmp_path / "runs/mine" / runs.METRICS).exists()


def asked(then: Callable[[], None]) -> int:
    """Return the status of a command that is asked to end, swallows that, and goes on with `then`."""
    with pytest.raises(SystemExit) as ended, clear_errors():
        with suppress(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        then()
    return int(ended.value.code or 0)


class Stubborn:
    """Its finalizer is where the program is when the signal comes."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_in_a_finalizer_is_the_status_and_has_no_traceback() -> None:
    with pytest.raises(SystemExit) as ended, clear_errors():
        Stubborn()
    assert ended.value.code == 143


class LostReader:
    """Its finalizer finds that a reader of images was killed while all were being ended."""

    def __del__(self) -> None:
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")


def test_a_reader_that_is_lost_at_its_end_has_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda error: told.append(str(error.exc_value)))
    LostReader()
    with clear_errors():
        LostReader()
    assert told == ["DataLoader worker (pid 1) is killed by signal: Killed."], "outside of a command only"


def test_a_signal_that_was_swallowed_is_the_status_of_every_command() -> None:
    def fails() -> None:
        raise RuntimeError("a worker is gone")

    assert asked(lambda: None) == 143
    assert asked(fails) == 143


def test_a_signal_during_an_import_ends_the_process_after_it_and_in_order(tmp_path: Path) -> None:
    """Libraries written in C++ abort if a module that they import raises; a file half written is removed."""
    (tmp_path / "library.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    code = "try:\n    import library\nexcept BaseException:\n    os.abort()\n"
    code += "try:\n    time.sleep(9)\nfinally:\n    print('in order')\n"
    begin = "import os, time\nfrom kd_lightning.utils.signals import stoppable\nwith stoppable():\n"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", begin + indent(code, "    ")]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 143 and done.stdout == "in order\n", done
