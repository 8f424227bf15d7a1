"""Two real processes on the CPU: one run directory, exact metrics, no stray folders, also in a sweep."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from kd_lightning import runs
from kd_lightning.data import DigitsDataModule
from tests.conftest import TINY, environment

TWO = ("trainer.devices=2", "trainer.precision=bf16-mixed", "trainer.max_epochs=3", "data.train_size=320")


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
    model, _ = runs.load_student(out)
    data = DigitsDataModule(train_size=320)
    data.setup()
    (right,) = [torch.cat([model(b.x).argmax(1) == b.y for b in data.test_dataloader()])]
    accuracy = run.metrics["student"]["best"]["test"]["accuracy"]
    assert accuracy == pytest.approx(float(right.float().mean()), abs=2 / 360), "one process says the same, bf16 apart"


@pytest.mark.slow
def test_a_sweep_of_two_processes_leaves_no_stray_folder(tmp_path: Path, teacher_run: Path) -> None:
    teacher = f"model.teacher_weights={teacher_run}"
    done = kd_train(tmp_path, "-m", *TINY, *TWO, teacher, "loss.temperature=1,4")
    assert done.returncode == 0, done.stderr
    assert [p.name for p in (tmp_path / "outputs").iterdir() if p.name != "teacher_cache"] == ["sweep"]
    (sweep,) = (tmp_path / "outputs" / "sweep").iterdir()
    assert [run.config.loss.temperature for run in runs.find(sweep)] == [1.0, 4.0]
