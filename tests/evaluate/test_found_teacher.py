"""The teacher of a run, whatever it was made of, is found again and says the same."""

from pathlib import Path

import pytest

from kd_lightning import runs
from kd_lightning.checks import UserError
from kd_lightning.config import build
from kd_lightning.evaluate import verify
from kd_lightning.teachers.found import find_teacher
from kd_lightning.train import train
from tests.conftest import compose


def test_several_teachers_one_of_them_trained_by_the_run_in_half_precision(teacher_run: Path, tmp_path: Path) -> None:
    cfg = compose(
        "model.teacher=[resnet8,resnet8]",
        f"model.teacher_weights=[auto,{teacher_run}]",
        f"teacher_stage.dir={tmp_path / 'teachers'}",
        "model.teacher_cache=off",
        "trainer.precision=bf16-mixed",
    )
    train(cfg, tmp_path / "run")
    result = verify(tmp_path / "run")
    assert result.ok, result.checks
    assert {"teacher accuracy", "best agreement", "best kl"} <= {check.name for check in result.checks}


def test_teacher_weights_that_were_never_trained_are_an_error_and_nothing_is_trained(tmp_path: Path) -> None:
    cfg = compose(f"teacher_stage.dir={tmp_path / 'teachers'}")
    with pytest.raises(UserError, match=r"model\.teacher_weights: .*teachers/digits-resnet8-\w+ is gone"):
        find_teacher(cfg, build(cfg.data, "data"))
    assert not (tmp_path / "teachers").exists()


def test_a_run_of_an_older_version_lacks_newer_keys(distilled: Path) -> None:
    cfg = runs.read(distilled).config
    del cfg.model.teacher_classes
    find_teacher(cfg, build(cfg.data, "data"))
