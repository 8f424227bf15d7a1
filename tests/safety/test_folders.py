"""Only what a run has made itself may ever be removed."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from kd_lightning.runs.names import override, resume_word
from kd_lightning.training import run
from tests.conftest import Finished

REFUSED = ("model.teacher=resnet8", "teacher_stage.max_epochs=1", "teacher_stage.optimizer.lr=1e-9")
"""A teacher that knows no more than chance."""


MINE = ("thesis.txt", "photos/a.png", "events.out.tfevents.mine", "last.ckpt", ".lock")


@pytest.mark.parametrize("folder", ["mydir", "."])
def test_a_folder_with_other_files_is_refused_and_stays_as_it_is(
    cli: Callable[..., Finished], tmp_path: Path, folder: str
) -> None:
    place = tmp_path / folder
    (place / "photos").mkdir(parents=True)
    for name in MINE:
        (place / name).write_text("mine")
    done = cli("loss=ce", f"hydra.run.dir={folder}")
    assert done.status == 2 and f"hydra.run.dir: {folder} is no run and holds" in done.err
    assert sorted(str(p.relative_to(place)) for p in place.rglob("*") if p.is_file()) == sorted(MINE)


def test_a_refused_teacher_leaves_what_came_into_its_folder(
    cli: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another program, while it trained."""
    measure = run.check_teacher

    def meanwhile(*args: Any, **kwargs: Any) -> Any:
        (tmp_path / "r" / "mine.txt").write_text("mine")
        return measure(*args, **kwargs)

    monkeypatch.setattr(run, "check_teacher", meanwhile)
    done = cli(*REFUSED, "hydra.run.dir=r")
    assert done.status == 2 and "chance" in done.err
    assert "it was trained here and learned too little: train it longer (teacher_stage.max_epochs=…)" in done.err
    assert "model.teacher_weights=imagenet" in done.err and "order of its classes" not in done.err
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["mine.txt"]
    again = cli(*REFUSED, "hydra.run.dir=again")
    assert again.status == 2 and again.err == done.err, "kept, and not reused blindly"


def test_a_log_that_was_there_before_stays(cli: Callable[..., Finished], tmp_path: Path) -> None:
    """A process that was killed before its run began leaves one, and the same command begins it."""
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "train.log").write_text("mine\n")
    assert cli(*REFUSED, "hydra.run.dir=r").status == 2
    assert (tmp_path / "r" / "train.log").read_text().startswith("mine\n")
    assert cli("loss=ce", "hydra.run.dir=r").status == 0


def test_nothing_is_removed_recursively_anywhere() -> None:
    package = Path(__file__).parents[2] / "kd_lightning"
    found = [p for p in package.rglob("*.py") if re.search(r"rmtree|rm -r|removedirs|recursive=True", p.read_text())]
    assert not found


def test_what_a_killed_process_left_half_written_goes_when_the_run_goes_on(
    cli: Callable[..., Finished], tmp_path: Path
) -> None:
    assert cli("loss=ce", "hydra.run.dir=r").status == 0
    for name in (".123.last.ckpt", ".9.metrics.json", ".5.mine.txt"):
        (tmp_path / "r" / name).write_text("half")
    assert cli("resume=r", "trainer.max_epochs=2", tiny=False).status == 0
    assert [p.name for p in (tmp_path / "r").iterdir() if p.name.startswith(".")] == [".5.mine.txt"]

    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "r" / "train.log").unlink()
    (tmp_path / "r" / "train.log").symlink_to(tmp_path / "mine.txt")
    done = cli("resume=r", "trainer.max_epochs=3", tiny=False)
    assert done.status == 2 and "r/train.log is a link to " in done.err
    assert (tmp_path / "mine.txt").read_text() == "mine", "a stranger's log is not the user's .bashrc"


SIGNS = ("lr=0.1,T=4 (a)", "it's [ä] {b}", "-m", 'say "hi"', "a\\'b", "x#y z")


@pytest.mark.parametrize("folder", [*SIGNS, "&".join(SIGNS)])
def test_the_printed_word_of_any_folder_is_read_back(folder: str) -> None:
    (word,) = shlex.split(resume_word(Path("runs") / folder))
    assert OverridesParser.create().parse_override(word).value() == f"runs/{folder}"


@pytest.mark.parametrize("folder", ["&".join(SIGNS), pytest.param("-m", marks=pytest.mark.slow)])
def test_a_folder_of_any_name_can_be_resumed_by_the_printed_word(
    cli: Callable[..., Finished], tmp_path: Path, folder: str
) -> None:
    (word,) = shlex.split(resume_word(Path("runs") / folder))
    done = cli("loss=ce", override("hydra.run.dir", f"runs/{folder}"))
    assert done.status == 0
    unwrapped = "".join(done.out.split())
    assert "".join(f"--logdir {shlex.quote(f'runs/{folder}')}".split()) in unwrapped, done.out
    assert cli(word, "trainer.max_epochs=2", tiny=False).status == 0
    again = cli(word, tiny=False)
    assert again.status == 2 and "finished" in again.err


def test_a_folder_with_signs_is_resumed_as_it_is_typed(cli: Callable[..., Finished]) -> None:
    assert cli("loss=ce", 'hydra.run.dir="a/lr=0.1,T=4 (a)"').status == 0
    assert cli("resume=a/lr=0.1,T=4 (a)", "trainer.max_epochs=2", tiny=False).status == 0


def test_many_runs_in_one_second_have_folders_of_their_own(start: Callable, tmp_path: Path) -> None:
    started = [start("loss=ce") for _ in range(3)]
    assert [one.wait().status for one in started] == [0, 0, 0]
    names = [p.name for p in (tmp_path / "outputs" / "train").iterdir()]
    assert len(names) == 3 and all("_digits_resnet8_ce_seed0_" in name for name in names)
