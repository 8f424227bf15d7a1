"""Checkpoints are whole at every moment, and a run that goes on ends as if it had never stopped."""

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from kd_lightning import runs
from kd_lightning.training import checkpoints
from kd_lightning.training.checkpoints import Writer
from kd_lightning.training.run import train
from kd_lightning.utils import files
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.signals import Stopped
from tests.conftest import Finished, compose

WORDS = ("loss=ce", "trainer.max_epochs=6", "optimizer.lr=0.3", "data.batch_size=32")


def scores(path: Path) -> Any:
    """Everything of a run that must not depend on whether it stopped."""
    metrics = runs.read(path).metrics
    return metrics["student"], metrics.get("teacher", {}).get("test"), metrics["train"], metrics["sha256"]


def stop_at(monkeypatch: pytest.MonkeyPatch, epoch: int, when: str) -> None:
    """Let the process 'die' in an epoch: after the checkpoint of the best, or after both were written."""
    write = checkpoints.write_whole
    count = {"last": 0}

    def dying(path: Path, *args: Any, **kwargs: Any) -> None:
        if path.name == runs.LAST and when == "between" and count["last"] == epoch:
            raise Stopped(137)
        write(path, *args, **kwargs)
        if path.name == runs.LAST:
            count["last"] += 1
            if count["last"] > epoch and when == "after":
                raise Stopped(137)

    monkeypatch.setattr(checkpoints, "write_whole", dying)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that never stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(compose(*WORDS), out)
    return out


@pytest.mark.parametrize(
    ("epoch", "when"),
    [
        (0, "between"),
        (2, "after"),
        (4, "between"),
        *(pytest.param(*stop, marks=pytest.mark.slow) for stop in [(0, "after"), (2, "between"), (4, "after")]),
    ],
)
def test_a_run_that_stopped_after_any_epoch_ends_the_same(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None, epoch: int, when: str
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as m, pytest.raises(Stopped):
        stop_at(m, epoch, when)
        train(compose(*WORDS), out)
    train(compose(*WORDS), out, resume=True)
    assert scores(out) == scores(whole)


@pytest.mark.parametrize("loss", [("loss=ce",), ("loss=kd", "data.augment.mixup=0.2")], ids=["ce", "kd"])
def test_so_it_does_with_a_number_of_steps(
    cli: Callable[..., Finished], tmp_path: Path, teacher_run: Path, no_pictures: None, loss: tuple[str, ...]
) -> None:
    """With `max_steps` Lightning took each checkpoint for one from within an epoch: wrong answers of the teacher."""
    words = (*loss, f"model.teacher_weights={teacher_run}", "data.train_size=320", "data.batch_size=32")
    many = "trainer.max_steps=1000"
    assert cli(*words, "trainer.max_epochs=4", "scheduler=constant", many, "hydra.run.dir=whole").status == 0
    assert cli(*words, "trainer.max_epochs=2", "scheduler=constant", "hydra.run.dir=run").status == 0
    done = cli("resume=run", "trainer.max_epochs=4", many, tiny=False)
    assert done.status == 0, done.err
    assert runs.read(tmp_path / "run").metrics["images_seen"] == 4 * 320
    assert scores(tmp_path / "run") == scores(tmp_path / "whole")


def test_a_damaged_last_checkpoint_gives_way_to_the_one_before(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_pictures: None
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as m, pytest.raises(Stopped):
        stop_at(m, 3, "after")
        train(compose(*WORDS), out)
    data = bytearray((out / runs.LAST).read_bytes())
    data[len(data) // 2] ^= 16
    (out / runs.LAST).write_bytes(bytes(data))
    train(compose(*WORDS), out, resume=True)
    assert f"{out / runs.LAST} is damaged; going on from previous.ckpt" in " ".join(capsys.readouterr().out.split())
    assert scores(out) == scores(whole) and not (out / runs.PREVIOUS).exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half"])
def test_an_empty_or_halved_checkpoint_is_one_line(
    cli: Callable[..., Finished], tmp_path: Path, content: bytes
) -> None:
    assert cli("loss=ce", "hydra.run.dir=r").status == 0
    (tmp_path / "r" / runs.METRICS).unlink()
    (tmp_path / "r" / runs.LAST).write_bytes(content)
    done = cli("resume=r", tiny=False)
    assert done.status == 2 and "last.ckpt is damaged" in done.err and "Traceback" not in done.err


@pytest.mark.parametrize("is_missing", [True, False])
def test_more_epochs_without_a_checkpoint_leave_a_finished_run_as_it_is(
    cli: Callable[..., Finished], tmp_path: Path, is_missing: bool
) -> None:
    assert cli("loss=ce", "hydra.run.dir=r").status == 0
    (tmp_path / "r" / runs.LAST).unlink() if is_missing else (tmp_path / "r" / runs.LAST).write_bytes(b"PK")
    kept = {name: (tmp_path / "r" / name).read_bytes() for name in (runs.CONFIG, runs.METRICS, runs.STUDENT)}
    done = cli("resume=r", "trainer.max_epochs=2", tiny=False)
    assert done.status == 2 and "start a new run" in done.err and done.err.count("\n") == 1
    assert kept == {name: (tmp_path / "r" / name).read_bytes() for name in kept}


def test_a_finished_run_that_goes_on_and_stops_is_unfinished_and_keeps_its_old_scores(
    cli: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pictures: None
) -> None:
    """Its checkpoints are of the longer training then, and its scores of the shorter one."""
    assert cli("loss=ce", "hydra.run.dir=r").status == 0
    run, before = tmp_path / "r", scores(tmp_path / "r")
    with monkeypatch.context() as m:
        stop_at(m, 1, "after")
        assert cli("resume=r", "trainer.max_epochs=4", tiny=False).status == 137
    assert not runs.is_finished(run) and json.loads((run / runs.METRICS).read_text())["student"] == before[0]
    with pytest.raises(UserError, match=r"goes on with more epochs and did not finish; go on with resume="):
        runs.read(run)
    assert cli("resume=r", tiny=False).status == 0, "its configuration knows the new number of epochs"
    assert runs.read(run).metrics["epochs"] == 4 and "continues" not in runs.read(run).metrics


def test_a_finished_run_whose_going_on_is_refused_stays_finished(
    cli: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli("loss=ce", "hydra.run.dir=r").status == 0
    kept = {file.name: file.read_bytes() for file in (tmp_path / "r").iterdir() if file.suffix != ".log"}

    def refuses(*_: Any, **__: Any) -> None:
        raise UserError("no")

    monkeypatch.setattr("kd_lightning.training.run.build_trainer", refuses)
    assert cli("resume=r", "trainer.max_epochs=2", tiny=False).status == 2
    assert kept == {name: (tmp_path / "r" / name).read_bytes() for name in kept}


@pytest.mark.parametrize("part", [0.0, 0.5, 0.97])
def test_a_halved_configuration_is_one_line(cli: Callable[..., Finished], tmp_path: Path, part: float) -> None:
    assert cli("loss=ce", "hydra.run.dir=r").status == 0
    config = tmp_path / "r" / runs.CONFIG
    text = config.read_text()
    config.write_text(text[: int(part * len(text))])
    done = cli("resume=r", "trainer.max_epochs=2", tiny=False)
    assert done.status == 2 and len(done.err.splitlines()) == 1 and "config.yaml is damaged" in done.err


def test_a_full_disk_is_one_line_and_keeps_the_checkpoint_before(
    cli: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush, count = files.flush, {"last": 0}

    def full(path: Path) -> None:
        if path.name.endswith(".last.ckpt"):
            count["last"] += 1
            if count["last"] == 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        flush(path)

    monkeypatch.setattr(files, "flush", full)
    done = cli("loss=ce", "trainer.max_epochs=4", "hydra.run.dir=r")
    assert done.status == 2 and "last.ckpt: No space left on device" in done.err and "Traceback" not in done.err
    state = torch.load(tmp_path / "r" / runs.LAST, weights_only=True)
    assert state["epoch"] == 0 and not [p for p in (tmp_path / "r").iterdir() if p.name.startswith(".")]


def test_the_writer_leaves_no_thread(whole: Path) -> None:
    writer, before = Writer(), threading.active_count()
    for _ in range(5):
        writer.start(lambda: None)
    writer.wait()
    assert threading.active_count() == before


@pytest.mark.slow
def test_threads_do_not_grow_from_run_to_run(tmp_path: Path) -> None:
    train(compose("loss=ce"), tmp_path / "first")
    before = threading.active_count()
    for n in range(2):
        train(compose("loss=ce"), tmp_path / str(n))
    assert threading.active_count() == before
