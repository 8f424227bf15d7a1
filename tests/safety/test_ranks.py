"""Several processes: torchrun and srun agree on one folder; one that is killed does not take a sweep with it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kd_lightning import runs
from kd_lightning.training import processes as training_processes
from kd_lightning.utils import distributed
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.hardware import resolve_devices, usable_cores
from tests.conftest import TINY, environment

TWO = (*TINY, "trainer.devices=2", "data.batch_size=32", "trainer.max_epochs=2")
LAUNCHERS = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"],
    "srun": [sys.executable, "-m"],
}
SLURM = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NAME": "x",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NODELIST": "localhost",
    "SLURM_NODEID": "0",
    "MASTER_ADDR": "127.0.0.1",
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_of_a_launcher_share_one_folder_and_one_teacher(tmp_path: Path, launcher: str) -> None:
    """srun is played by its environment: it starts the processes, and says no more than this."""
    ranks = [{}] if launcher == "torchrun" else [SLURM | {"SLURM_PROCID": r, "SLURM_LOCALID": r} for r in "01"]
    command = [*LAUNCHERS[launcher], "kd_lightning.train", *TWO]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    processes = [subprocess.Popen(command, cwd=tmp_path, env=environment() | rank, **pipes) for rank in ranks]
    out = [process.communicate(timeout=300)[0].decode() for process in processes]
    assert [process.returncode for process in processes] == [0] * len(ranks), out
    (folder,) = (tmp_path / "outputs" / "train").iterdir()
    assert runs.read(folder).metrics["devices"] == 2 and len(list(tmp_path.glob("outputs/teachers/*/config.yaml"))) == 1


@pytest.mark.slow
def test_a_sweep_survives_the_loss_of_a_process(tmp_path: Path) -> None:
    words = (
        *TINY,
        "loss=ce",
        "trainer.devices=2",
        "data.batch_size=8",
        "seed=0,1",
        "hydra.sweep.dir=s",
        "hydra.sweep.subdir=${seed}",
    )
    command = [sys.executable, "-m", "kd_lightning.train", "-m", *words, "trainer.max_epochs=20"]
    sweep = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        deadline = time.monotonic() + 200
        while not (tmp_path / "s/0" / runs.LAST).exists():
            assert sweep.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        (child,) = Path(f"/proc/{sweep.pid}/task/{sweep.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        out, _ = sweep.communicate(timeout=300)
    finally:
        sweep.kill()
    assert sweep.returncode == 1, out
    assert re.search(rf"error: process {child}, rank 1 of the training, ended with SIGKILL", out), out
    assert not runs.is_finished(tmp_path / "s/0") and runs.is_finished(tmp_path / "s/1"), out
    assert not Path(f"/proc/{child}").exists()


CHILD = """
import os, time
from kd_lightning.utils.distributed import end_with_the_first
end_with_the_first()
print(os.getpid(), flush=True)
time.sleep(60)
"""
FIRST = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"


def test_a_process_ends_when_its_first_one_is_killed() -> None:
    told = {"KD_LIGHTNING_TOLD": "{}", "LOCAL_RANK": "1"}
    with subprocess.Popen([sys.executable, "-c", FIRST], env=environment() | told, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        child = int(first.stdout.readline())
        os.kill(child, 0)
        first.kill()
        began = time.monotonic()
        assert first.stdout.read() == b"", "the child has closed it, too: it is gone"
        assert time.monotonic() - began < 30


def test_more_devices_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=r"trainer\.devices=99, but this process may use"):
        resolve_devices(99, "cpu")
    assert resolve_devices(usable_cores(), "cpu") == usable_cores()


def test_only_global_rank_0_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(distributed.rank_zero_only, "rank", None, raising=False)
    for variables, first in (
        ({}, True),
        ({"NODE_RANK": "1"}, False),
        ({"NODE_RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "2", "LOCAL_RANK": "0"}, False),
        ({"RANK": "0", "LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"SLURM_PROCID": "1", "LOCAL_RANK": "0"}, False),
    ):
        with monkeypatch.context() as m:
            for name, value in variables.items():
                m.setenv(name, value)
            assert distributed.is_first_rank() is first, variables


def test_a_process_is_told_what_the_first_one_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that Lightning starts: it has the environment of the first."""
    monkeypatch.setenv("KD_LIGHTNING_TOLD", "{}")
    assert distributed.tell("teacher x", lambda: "train") == "train"
    monkeypatch.setattr(distributed.rank_zero_only, "rank", 1)
    assert distributed.tell("teacher x", lambda: "other") == "train"
    with pytest.raises(UserError, match="was not told"):
        distributed.tell("teacher y", lambda: "other")


def test_a_folder_that_a_rank_does_not_see_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_processes, "SHARED_WITHIN", 0.1)
    strategy = SimpleNamespace(reduce_boolean_decision=lambda seen, all: seen)
    trainer: Any = SimpleNamespace(world_size=2, strategy=strategy)
    with pytest.raises(UserError, match="does not see the run directory"):
        training_processes.OneFolder(tmp_path / "x").setup(trainer, trainer, "fit")
