"""Sweeps as real processes: stopped, killed, two at once. What is finished stays, what is not goes on."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kd_lightning import runs
from kd_lightning.runs.lock import LOCK, Busy, alone
from tests.chaos.processes import Process
from tests.conftest import TINY, environment

SWEEP = ("-m", *TINY, "loss=ce", "hydra.sweep.dir=sweep")


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "kd_lightning.train", *SWEEP, *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment(), stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stopped_sweep_goes_on_with_the_same_command(how: signal.Signals, tmp_path: Path) -> None:
    words = ("seed=0,1", "trainer.max_epochs=20")
    finished, stopped = tmp_path / "sweep" / "0_seed0", tmp_path / "sweep" / "1_seed1"
    first = Process(tmp_path, [*SWEEP, *words])
    while not (stopped / runs.LAST).exists():
        assert not first.is_over(), first.wait()
        time.sleep(0.01)
    first.kill(how)
    status, out = first.wait(60)
    assert status != 0 and "Traceback" not in out, out
    assert (how == signal.SIGINT) == ("interrupted" in out)
    assert runs.is_finished(finished) and not runs.is_finished(stopped)
    assert (stopped / LOCK).exists() == (how == signal.SIGKILL), "and yet no one holds it"
    weights = (finished / "student.safetensors").stat().st_mtime_ns

    status, out = Process(tmp_path, [*SWEEP, *words]).wait(120)
    assert status == 0, out
    assert "1 finished run lies there already and is not run again" in out
    assert "finished before, not run again: sweep/0_seed0" in out
    assert (finished / "student.safetensors").stat().st_mtime_ns == weights
    metrics = runs.read(stopped).metrics
    assert metrics["parts"] == 2 and metrics["epochs"] == 20
    assert not list((tmp_path / "sweep").rglob(LOCK)) and (tmp_path / "sweep" / "comparison.html").is_file()


@pytest.mark.slow
def test_two_processes_share_a_sweep(tmp_path: Path) -> None:
    both = [start(tmp_path, "seed=0,1,2,3", "trainer.max_epochs=6") for _ in range(2)]
    said = [process.communicate(timeout=200) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    found = runs.find(tmp_path / "sweep")
    assert [run.metrics["parts"] for run in found] == [1] * 4, "no run was begun twice"
    assert sum(out.count("done in") for out, _ in said) == 4
    assert sum(out.count("not run again: ") + out.count("not started here: ") for out, _ in said) == 4
    assert not list((tmp_path / "sweep").rglob(LOCK))


def test_a_run_belongs_to_one_process(tmp_path: Path) -> None:
    """The lock of another process counts, whatever this one thinks; it is free when that process is gone."""
    code = "import sys, pathlib; from kd_lightning.runs.lock import alone\n"
    code += "with alone(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True,
    )  # fmt: skip
    assert other.stdout is not None and other.stdout.readline() == "in\n"
    with pytest.raises(Busy, match="is being trained by another process"), alone(tmp_path):
        raise AssertionError("two processes in one run")
    other.kill()
    other.communicate()
    with alone(tmp_path):
        assert (tmp_path / LOCK).is_file()
    assert not list(tmp_path.iterdir())
