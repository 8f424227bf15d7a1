"""A resume that is refused, or only tried, changes nothing of the run; one that diverges keeps its scores."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kd_lightning import runs
from tests.conftest import Finished, compose

Cli = Callable[..., Finished]


def kept(path: Path) -> tuple[bytes, ...]:
    return tuple((path / name).read_bytes() for name in (runs.CONFIG, runs.METRICS, runs.LAST))


def test_a_trial_of_a_finished_run_leaves_it_finished(cli: Cli, tmp_path: Path) -> None:
    assert cli("loss=ce", "hydra.run.dir=r").status == 0
    before = kept(tmp_path / "r")
    assert cli("resume=r", "trainer.max_epochs=3", "trainer.fast_dev_run=true", tiny=False).status == 0
    assert kept(tmp_path / "r") == before and runs.is_finished(tmp_path / "r")


def test_a_trial_of_a_run_that_was_stopped_early_leaves_it(cli: Cli, tmp_path: Path) -> None:
    """It was removed, as it has no checkpoint yet."""
    assert cli("loss=ce", "hydra.run.dir=r").status == 0
    for name in (runs.METRICS, runs.LAST, "best.ckpt", runs.STUDENT):
        (tmp_path / "r" / name).unlink(missing_ok=True)
    before = (tmp_path / "r" / runs.CONFIG).read_bytes()
    assert cli("resume=r", "trainer.fast_dev_run=true", tiny=False).status == 0
    assert (tmp_path / "r" / runs.CONFIG).read_bytes() == before
    assert list((tmp_path / "r").glob("events*"))


def test_a_wrong_teacher_that_is_refused_is_not_stored(cli: Cli, teacher_run: Path, tmp_path: Path) -> None:
    """It was, so that the next resume found the wrong path, and the right one was in no file."""
    assert cli("model.teacher_weights=auto", "hydra.run.dir=r", "teacher_stage.seed=7").status == 0
    (tmp_path / "r" / runs.METRICS).unlink()  # as if it had been stopped
    before = (tmp_path / "r" / runs.CONFIG).read_bytes()
    done = cli("resume=r", "trainer.max_epochs=2", f"model.teacher_weights={teacher_run}", tiny=False)
    assert done.status == 2 and "the SHA-256 of the teacher's weights is" in done.err, done
    assert (tmp_path / "r" / runs.CONFIG).read_bytes() == before


def test_no_second_teacher_is_trained_for_a_run_that_goes_on(cli: Cli, tmp_path: Path) -> None:
    """Its folder has a name by the length of training; hours later the run was refused for its other weights."""
    assert cli("hydra.run.dir=r").status == 0
    done = cli("resume=r", "trainer.max_epochs=2", "trainer.max_steps=1000", tiny=False)
    assert done.status == 2 and "resume: no teacher is kept in outputs/teachers/" in done.err, done
    assert len([path for path in (tmp_path / "outputs" / "teachers").iterdir() if path.is_dir()]) == 1


def test_a_run_that_ended_early_goes_on_only_if_it_is_to_be_longer(cli: Cli, tmp_path: Path) -> None:
    assert cli("loss=ce", "trainer.max_epochs=4", "trainer.max_steps=12", "hydra.run.dir=r").status == 0
    before = kept(tmp_path / "r")
    assert runs.read(tmp_path / "r").metrics["epochs"] < 4
    done = cli("resume=r", tiny=False)
    assert done.status == 2 and "is finished" in done.err and kept(tmp_path / "r") == before
    done = cli("resume=r", "trainer.max_steps=6", tiny=False)
    assert done.status == 2 and kept(tmp_path / "r") == before, "shorter"
    assert cli("resume=r", "trainer.max_epochs=5", "trainer.max_steps=-1", tiny=False).status == 0


def test_old_scores_stay_where_a_longer_training_diverges(tmp_path: Path) -> None:
    (tmp_path / runs.METRICS).write_text('{"student": {"last": 1}, "continues": true}')
    runs.write_diverged(tmp_path, {"epoch": 3})
    how = runs.diverged(tmp_path)
    assert how is not None and how["epoch"] == 3 and how["student"] == {"last": 1}


def test_a_search_needs_validation_samples(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing was held out it chose by the test set."""
    from kd_lightning.runs.command import Command, Sweep
    from kd_lightning.train import _selected_accuracy
    from kd_lightning.training.build import build_experiment
    from kd_lightning.utils.checks import UserError

    monkeypatch.setattr(Command(), "sweep", Sweep(("loss.alpha",), None))
    with pytest.raises(UserError, match="a search chooses by validation accuracy"):
        build_experiment(compose("loss=ce", "data.val_size=0"))
    build_experiment(compose("loss=ce"))
    found = _selected_accuracy({"select": "last", "student": {"last": {"test": {"accuracy": 0.9}}}})
    assert found != found
