"""What a training says on the terminal: how long it will take, one line for each run of a sweep, nothing unlabelled."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from rich.console import Console
from rich.progress import Progress

from kd_lightning import compress
from kd_lightning.cli import clear_errors
from kd_lightning.runs import names
from kd_lightning.runs.command import Command, Sweep
from kd_lightning.training import forecast
from kd_lightning.training.forecast import duration
from kd_lightning.training.progress_bar import Bar
from kd_lightning.utils.console import above, say
from tests.conftest import TINY, Finished

pytestmark = pytest.mark.usefixtures("no_pictures")
Cli = Callable[..., Finished]
BAR = [word for word in TINY if "progress" not in word]


def test_each_stage_says_first_how_long_it_takes(cli: Cli) -> None:
    done = cli("optimizer.lr=0.05", "teacher_stage.optimizer.lr=0.05", "teacher_stage.max_epochs=6")
    told = re.findall(r"^(teacher|student): about .* here for (\d+) epochs? \(\d+ ms a step\)(.*)$", done.out, re.M)
    assert [(who, epochs) for who, epochs, _ in told] == [("teacher", "6"), ("student", "1")], done.out + done.err
    assert told[0][2].startswith("; then the student, about ") and told[1][2] == ""
    assert done.out.index("teacher: about") < done.out.index("done in")


def test_what_is_long_for_a_cpu_is_told_with_what_to_run_instead(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "LONG", 0.0)
    told = cli("loss=ce").out
    assert "That is long for a CPU. Shorter: fewer images (data.train_size=5000)" in told
    assert all(len(line) <= 80 for line in told[told.index("That is long") :].splitlines() if line[:9].isspace())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "for 10 epochs"),
        ({"accumulate_grad_batches": 4, "estimated_stepping_batches": 20}, "for 10 epochs"),
        ({"global_step": 35}, "for 3 epochs"),
        ({"max_steps": 12, "estimated_stepping_batches": 12}, "for 12 steps"),
    ],
)
def test_the_forecast_names_what_is_left(
    settings: dict[str, int], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"num_training_batches": 5, "accumulate_grad_batches": 1, "estimated_stepping_batches": 50}
    values |= {"max_steps": -1, "global_step": 0} | settings
    data, strategy = SimpleNamespace(num_views=None), SimpleNamespace(root_device=torch.device("cpu"))
    trainer: Any = SimpleNamespace(**values, datamodule=data, strategy=strategy)
    one = forecast.Forecast(1.0, 0.1, "")
    one.on_train_start(trainer, trainer)
    one._tell(trainer, pace=0.1, ahead=0.0)
    assert f"{told} ({100 * values['accumulate_grad_batches']} ms a step)" in capsys.readouterr().out


def test_nothing_unlabelled_is_left_on_the_terminal(cli: Cli) -> None:
    done = cli(*BAR, "loss=ce", tiny=False)
    assert done.status == 0 and not re.search(r"^(validation|test) ", done.out, re.M)


def test_a_sweep_is_one_line_for_each_run_and_one_table(cli: Cli, teacher_run: Path) -> None:
    done = cli("-m", f"model.teacher_weights={teacher_run}", "loss.temperature=1,4", "hydra.sweep.dir=sweep")
    before = done.out[done.out.index("power:") : done.out.index("2 finished runs")]
    slow = "student: about "  # told where the machine is busy
    lines = [line for line in before.splitlines()[1:] if line.strip() and not line.startswith(slow)]
    assert [line.partition(":")[0] for line in lines] == ["run 1 of 2, 0_T1", "run 2 of 2, 1_T4"]
    assert all(len(line) <= 80 for line in lines) and "hydra.sweep.dir=sweep" in done.out
    assert "right on validation samples" in (Path("sweep/0_T1/train.log")).read_text(), "the log has the details"


def test_quantizing_says_nothing_of_a_training(
    distilled: Path, tmp_path: Path, command: Callable[..., Finished]
) -> None:
    done = command(compress, distilled, "--quantize", "int8", "--out", tmp_path / "int8")
    assert done.status == 0 and "measured, not trained" in done.out
    for words in ("nan h", "0 epochs", "done in 0 s", "Testing"):
        assert words not in done.out


def test_names_of_runs_tell_them_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = ["data=digits", "loss=kd", "loss.temperature=4", "loss.alpha=0.9", "seed=1"]
    name = names.run_name("digits", "resnet8", "kd", 1, typed)
    assert "_digits_resnet8_kd_T4_alpha0.9_seed1_" in name
    monkeypatch.setattr(Command(), "sweep", Sweep(("loss", "loss.temperature", "seed"), 8))
    assert names.sweep_name(7, typed) == "7_kd_T4_seed1"
    assert "/" not in names.sweep_name(0, ["loss=my/path = x", "seed=../1"])


def test_a_teacher_that_is_asked_before_each_epoch_is_not_counted_for_each_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.perf_counter", lambda: 101.0)
    bar, trainer = Bar(Mock(), Mock(later=0.0)), Mock(global_step=1, estimated_stepping_batches=100)
    trainer.fit_loop.batch_idx, trainer.num_training_batches = 0, 50  # the second epoch asks again
    trainer.lightning_module.teacher.seconds_ahead = 100.0
    assert bar._time_left(trainer) == "4:57", "99 steps, each with its share of the 100 s"
    assert forecast.asked(20, None) == 20 and forecast.asked(20, 1) == 1 and 100 < forecast.asked(200, 162) < 162


def test_the_bar_says_what_is_trained_and_counts_epochs_from_one() -> None:
    bar = Bar(Mock(), Mock(stage="teacher"))
    bar._trainer = Mock(max_epochs=20)
    assert bar._get_train_description(0) == "teacher 1/20"


def test_a_line_goes_above_the_bar_not_into_it() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    with Progress(console=console) as bar, above(console):
        bar.add_task("Epoch 0")
        bar.refresh()
        say("student: about 10 s")
    before, _, after = screen.getvalue().partition("student: about 10 s")
    assert before.endswith("\r\x1b[2K") and after.startswith("\n"), "the bar is erased first"


def test_what_is_said_of_the_data_is_printed_once_by_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with clear_errors():
            for _ in range(2):
                say("train: 3 of 9 recordings are resampled", detail=True)
                say("a line")
    assert capsys.readouterr().out.splitlines() == 2 * ["train: 3 of 9 recordings are resampled", "a line", "a line"]


def test_durations_in_words() -> None:
    assert [duration(s) for s in (95, 720, 4.5 * 3600)] == ["95 s", "12.0 min", "4.5 h"]
