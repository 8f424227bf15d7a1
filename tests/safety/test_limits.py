"""Values and places that ended in a traceback, some after the training: one line, before it."""

import errno
import os
import shutil
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, TracebackType

import pytest
import torch

from kd_lightning import cli as cli_module
from kd_lightning import evaluate, runs
from kd_lightning.evaluation import record
from kd_lightning.plots.evaluation import confusion_figure, save
from kd_lightning.teachers.cache.table import LogitTable
from kd_lightning.training import pictures
from kd_lightning.training.faults import lost_worker_in_one_line, memory_in_one_line
from kd_lightning.training.run import train
from kd_lightning.training.trainer import SWITCHES
from kd_lightning.utils.checks import LostProcess, UserError
from tests.conftest import Finished, compose


def is_one_line(done: Finished, *words: str) -> bool:
    """Return whether a command ended with status 2 and one line that has these words."""
    text = done.err.strip()
    return done.status == 2 and len(text.splitlines()) == 1 and all(word in text for word in words)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("limit", ["0", "0.0", "1e-9", "-1", "nan"])
def test_limits_below_one_batch(cli: Callable[..., Finished], split: str, limit: str) -> None:
    done = cli("loss=ce", f"trainer.limit_{split}_batches={limit}")
    hint = ["data.val_size=0"] if split == "val" and limit in ("0", "0.0") else []
    assert is_one_line(done, f"trainer.limit_{split}_batches", *hint), done
    assert "done in" not in done.out and "CE ·" not in done.out, "before the training"


@pytest.mark.parametrize("limit", ["0.5", *(pytest.param(one, marks=pytest.mark.slow) for one in ("1", "1.0", "7"))])
def test_limits_that_leave_something(cli: Callable[..., Finished], limit: str) -> None:
    assert cli("loss=ce", f"trainer.limit_val_batches={limit}", "data.eval_batch_size=64").status == 0


@pytest.mark.parametrize("key", SWITCHES)
def test_a_switch_that_is_a_number(cli: Callable[..., Finished], key: str) -> None:
    assert is_one_line(cli("loss=ce", f"trainer.{key}=0"), f"trainer.{key} must be true or false, got 0")


@pytest.mark.parametrize("word", ["trainer.max_steps=0", "trainer.max_steps=-2", "trainer.skip_nonfinite=-1"])
def test_counts_out_of_range(cli: Callable[..., Finished], word: str) -> None:
    assert is_one_line(cli("loss=ce", word), word.split("=")[0])


def test_a_cache_path_that_is_a_file(cli: Callable[..., Finished], teacher_run: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = cli(f"model.teacher_weights={teacher_run}", "model.teacher_cache=taken")
    assert is_one_line(done, "taken"), done


def test_a_table_of_the_cache_that_is_a_folder(cli: Callable[..., Finished], teacher_run: Path, tmp_path: Path) -> None:
    words = (f"model.teacher_weights={teacher_run}", "model.teacher_cache=cache")
    assert cli(*words).status == 0
    for table in tmp_path.glob("cache/*/*"):
        table.unlink()
        table.mkdir()
    assert is_one_line(cli(*words), "cache")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_teacher_folder(cli: Callable[..., Finished], tmp_path: Path) -> None:
    (tmp_path / "teachers").mkdir(mode=0o555)
    assert is_one_line(cli("teacher_stage.dir=teachers"), "teacher_stage.dir")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENAMETOOLONG])
def test_what_the_disk_says_is_one_line(capsys: pytest.CaptureFixture[str], code: int) -> None:
    with pytest.raises(SystemExit) as e, cli_module.clear_errors():
        raise OSError(code, os.strerror(code), "/place")
    assert e.value.code == 2 and "/place" in capsys.readouterr().err


def test_other_errors_of_the_system_keep_their_traceback() -> None:
    with pytest.raises(OSError, match="nothing there"), cli_module.clear_errors():
        raise OSError(errno.ENOENT, "nothing there")


def test_memory_that_is_used_up_is_one_line() -> None:
    for error in (MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")):
        with pytest.raises(UserError, match=r"data\.batch_size=64"), memory_in_one_line(64):
            raise error
    with pytest.raises(RuntimeError, match="ours"), memory_in_one_line(64):
        raise RuntimeError("ours")


class Dies(torch.utils.data.Dataset[int]):
    """Samples whose reader is killed, as by a system that is out of memory."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> int:
        if i == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return i


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # torch's handler, if in a destructor
def test_a_process_that_reads_and_is_killed_is_one_line() -> None:
    loader = torch.utils.data.DataLoader(Dies(), batch_size=2, num_workers=1)
    told = r"a process that reads samples is gone .*lower data\.num_workers"
    # as in a run, other managers are inside: the signal may come at the first line of the innermost one's end
    with pytest.raises(LostProcess, match=told), lost_worker_in_one_line(), memory_in_one_line(2):
        list(loader)
    with pytest.raises(RuntimeError, match="ours"), lost_worker_in_one_line():
        raise RuntimeError("ours")


def test_a_run_whose_reader_was_killed_can_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its line says resume=RUN, and the folder was removed."""
    lost = LostProcess("a process that reads samples is gone")

    def fit(*args: object, **kwargs: object) -> None:
        raise lost

    with monkeypatch.context() as broken, pytest.raises(LostProcess):
        broken.setattr("lightning.pytorch.Trainer.fit", fit)
        train(compose("loss=ce"), tmp_path / "run")
    train(compose("loss=ce"), tmp_path / "run", resume=True)
    assert runs.is_finished(tmp_path / "run")


def test_a_killed_process_whose_signal_comes_while_its_closed_pipe_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late = RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")

    def walk(tb: TracebackType) -> Iterator[tuple[FrameType, int]]:
        monkeypatch.undo()
        exec(compile("raise late", "signal_handling.py", "exec"), {"__name__": "torch.utils.data._utils", "late": late})
        yield from ()

    def closed_pipe() -> None:
        exec("raise ConnectionResetError", {"__name__": "torch.utils.data.dataloader"})

    monkeypatch.setattr(traceback, "walk_tb", walk)
    with pytest.raises(LostProcess, match="killed by signal"), lost_worker_in_one_line():
        closed_pipe()


def test_a_full_disk_under_the_cache_is_an_error_that_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a signal, which a memory map would end the process by."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    table = LogitTable(tmp_path / "t.bin", 4, 10, torch.float32)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match=r"t\.bin"):
        table.write(torch.arange(2), torch.randn(2, 10))


@pytest.mark.filterwarnings("ignore:Glyph")  # boxes in their place
def test_names_of_classes_are_drawn_as_they_are(tmp_path: Path) -> None:
    classes = ["$x^{$", "日本", r"a_b\frac"]
    save(confusion_figure({"student": [[3, 0, 1], [0, 4, 0], [1, 1, 2]]}, classes), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_a_picture_of_an_evaluation_that_cannot_be_drawn_is_one_line(
    command: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch, distilled: Path, tmp_path: Path
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("no glyph\nfor this")

    monkeypatch.setattr(record, "figures", fails)
    done = command(evaluate, shutil.copytree(distilled, tmp_path / "run"), "--images", 0)
    assert done.status == 0 and "ValueError: no glyph" in done.out


def test_a_picture_that_cannot_be_drawn_is_one_line(
    cli: Callable[..., Finished], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("no glyph\nfor this")

    monkeypatch.setattr(pictures, "log_pictures", fails)
    done = cli("loss=ce", "hydra.run.dir=r")
    assert done.status == 0 and "no figures in TensorBoard: ValueError: no glyph" in done.out
    assert (tmp_path / "r" / "metrics.json").is_file()


@pytest.mark.parametrize(
    "word", ["trainer.precision=bf16-true", "trainer.precision=64-true", "trainer.fast_dev_run=true"]
)
def test_unusual_trainings_end_well(cli: Callable[..., Finished], word: str) -> None:
    before = threading.active_count()
    assert cli("loss=ce", word).status == 0
    assert threading.active_count() <= before
