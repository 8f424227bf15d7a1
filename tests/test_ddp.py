"""Two real processes on the CPU: one run directory, exact metrics, no stray folders, also in a sweep."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kd_lightning import runs
from kd_lightning.data import DigitsDataModule
from kd_lightning.runs.students import load_student
from tests.conftest import TINY, environment

TWO = (
    "~trainer.check_val_every_n_epoch",
    "trainer.devices=2",
    "trainer.precision=bf16-mixed",
    "trainer.max_epochs=3",
    "data.train_size=320",
)


def kd_train(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kd_lightning.train", *words]
    return subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=300)


def test_two_processes_train_a_teacher_and_a_student(tmp_path: Path) -> None:
    done = kd_train(tmp_path, *TINY, *TWO)
    assert done.returncode == 0, done.stderr
    (out,) = (tmp_path / "outputs" / "train").iterdir()
    run = runs.read(out)
    assert run.metrics["devices"] == 2 and run.metrics["epochs"] == 3 and run.metrics["precision"] == "bf16-mixed"
    assert done.stdout.count("done in") == 2, "each training speaks once, not once a process"
    model, _ = load_student(out)
    data = DigitsDataModule(train_size=320)
    data.setup()
    (right,) = [torch.cat([model(b.x).argmax(1) == b.y for b in data.test_dataloader()])]
    accuracy = run.student["test"]["accuracy"]
    assert accuracy == pytest.approx(float(right.float().mean()), abs=2 / 360), "one process says the same, bf16 apart"


SLOW_DISK = """
import time
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from kd_lightning.train import main

save = TorchCheckpointIO.save_checkpoint


def slow(*args, **kwargs):
    time.sleep(3)
    save(*args, **kwargs)


TorchCheckpointIO.save_checkpoint = slow
main()
"""


@pytest.mark.slow
def test_all_processes_wait_for_the_last_checkpoint(tmp_path: Path) -> None:
    """The first one writes it behind the training's back; a process that did not find it would not join the test."""
    (tmp_path / "slow_disk.py").write_text(SLOW_DISK)
    words = (*TINY, *TWO, "loss=ce", "data.val_size=0")
    command = [sys.executable, "slow_disk.py", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (out,) = (tmp_path / "outputs" / "train").iterdir()
    assert runs.read(out).metrics["student"]["last"]["test"]["accuracy"] > 0.1


@pytest.mark.slow
def test_a_sweep_of_two_processes_leaves_no_stray_folder(tmp_path: Path, teacher_run: Path) -> None:
    teacher = f"model.teacher_weights={teacher_run}"
    done = kd_train(tmp_path, "-m", *TINY, *TWO, teacher, "loss.temperature=1,4")
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (tmp_path / "outputs").iterdir() if p.name != "teacher_cache"] == ["sweep"]
    (sweep,) = (tmp_path / "outputs" / "sweep").iterdir()
    assert [run.config.loss.temperature for run in runs.find(sweep)] == [1.0, 4.0]
