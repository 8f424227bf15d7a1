"""The teacher of a run, whatever it was made of, is found again and says the same."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from kd_lightning import runs
from kd_lightning.config import build
from kd_lightning.evaluation.found import find_teacher
from kd_lightning.evaluation.opened import open_run
from kd_lightning.evaluation.record import evaluate
from kd_lightning.evaluation.verify import verify
from kd_lightning.teachers.opened import TeacherFile, TeacherSpec
from kd_lightning.training.kept_teacher import check_is_as_trained
from kd_lightning.training.run import train
from kd_lightning.utils.checks import UserError
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


def test_another_teacher_than_the_one_that_taught_is_told(
    distilled: Path, teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file was written anew: a run that goes on would have two teachers, and an evaluation a wrong one."""
    run = shutil.copytree(distilled, tmp_path / "run")
    for module in ("training.run", "evaluation.found"):
        monkeypatch.setattr(f"kd_lightning.{module}.weights_checksum", lambda _: "another")
    cfg = compose(f"model.teacher_weights={teacher_run}", "model.teacher_cache=off", "trainer.max_epochs=3")
    with pytest.raises(UserError, match=r"the SHA-256 of the teacher's weights is \['another'\], and was"):
        train(cfg, run, resume=True)
    assert runs.is_finished(run)
    _, note = open_run(run).teacher_if_found()
    assert note is not None and "has changed since it taught" in note


def test_a_kept_teacher_whose_code_has_changed_does_not_teach(teacher_run: Path) -> None:
    """Its tensors still fit, as after a change of an activation, and it may know more than chance."""
    spec, trainer = TeacherSpec("resnet8", {}, "auto"), compose().trainer
    other = TeacherSpec("hf/net", {}, "published", task="other")  # has no file
    file = TeacherFile(spec, teacher_run / runs.STUDENT, "")
    known = runs.read(teacher_run).student["val"]["accuracy"]

    def check(accuracy: float, samples: int = 144, **keys: int) -> None:
        found = {"val/teacher_accuracy": accuracy}
        check_is_as_trained([other, spec], [file], OmegaConf.merge(trainer, keys), found, samples)

    check(known - 0.01)
    check(known - 0.06, samples=30)  # two samples
    with pytest.raises(
        UserError, match=r"was right on \d+.* when it was trained, and is on 20\.0%: its code or the data"
    ):
        check(0.2)
    check(0.2, limit_val_batches=1)


def test_teacher_weights_that_were_never_trained_are_an_error_and_nothing_is_trained(tmp_path: Path) -> None:
    cfg = compose(f"teacher_stage.dir={tmp_path / 'teachers'}")
    with pytest.raises(UserError, match=r"model\.teacher_weights: .*teachers/digits-resnet8-\w+ is gone"):
        find_teacher(runs.Run(tmp_path, cfg, {"teacher": {}}), cfg, build(cfg.data, "data"))
    assert not (tmp_path / "teachers").exists()


def test_a_teacher_trained_by_the_run_is_found_after_a_change_of_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version may hash the recipe otherwise, and both folders may have been moved together."""
    cfg = compose(f"teacher_stage.dir={tmp_path / 'all' / 'teachers'}", "model.teacher_cache=off")
    train(cfg, tmp_path / "all" / "run")
    monkeypatch.setattr("kd_lightning.training.teacher_stage._recipe_id", lambda *_: "00000000")
    shutil.copytree(tmp_path / "all" / "run", tmp_path / "far" / "away" / "copied")
    assert "teacher accuracy" in {check.name for check in verify(tmp_path / "far" / "away" / "copied").checks}
    (tmp_path / "all").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    result = verify(tmp_path / "moved" / "run")
    assert result.ok and "teacher accuracy" in {check.name for check in result.checks}, result.notes
    gone = verify(tmp_path / "moved" / "run", ["teacher_stage.dir=elsewhere"])
    assert any("elsewhere" in note and "is gone" in note for note in gone.notes), "what is typed counts"


@pytest.mark.slow
def test_a_teacher_is_counted_at_the_size_that_it_sees(
    teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kd_lightning.training.run.check_teacher", lambda *_, **__: {})  # at that size it knows nothing
    cfg = compose(f"model.teacher_weights={teacher_run}", "model.teacher_input_size=16", "model.teacher_cache=off")
    metrics = train(cfg, tmp_path / "run")
    assert metrics["teacher"]["parameters"] == metrics["student"]["parameters"]
    assert metrics["teacher"]["macs"] == pytest.approx(4 * metrics["student"]["macs"], rel=0.01)
    costs = evaluate(tmp_path / "run", images=0)
    assert costs["teacher"]["macs"] == metrics["teacher"]["macs"]


def test_data_that_is_gone_keeps_neither_student_nor_teacher_from_being_opened(
    distilled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise UserError("data.root: gone")

    monkeypatch.setattr("kd_lightning.data.DigitsDataModule.setup", gone)
    opened = open_run(distilled)
    assert opened.student is opened.students[opened.select] and opened.find_teacher().networks
    with pytest.raises(UserError, match="gone"):
        _ = opened.data
