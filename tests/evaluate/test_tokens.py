"""A finished run of a data set that has no images: evaluated, verified, and refused by predict."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kd_lightning import evaluate, predict
from kd_lightning.evaluation.opened import open_run
from kd_lightning.evaluation.record import evaluate as evaluate_run
from kd_lightning.evaluation.verify import verify
from kd_lightning.training.run import train
from kd_lightning.utils import latency
from kd_lightning.utils.trust import trusting
from tests.conftest import Finished, compose

Command = Callable[..., Finished]


@pytest.fixture(scope="module")
def of_tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run directory of a student distilled from a teacher that the run trained."""
    folder = tmp_path_factory.mktemp("tokens")
    cfg = compose(
        "model.student=tests.evaluate.tokens.TokenNet",
        "model.teacher=tests.evaluate.tokens.TokenNet",
        "model.teacher_cache=off",
        f"teacher_stage.dir={folder / 'teachers'}",
        "trainer.max_epochs=4",
        "optimizer.lr=0.5",
    )
    cfg.model.teacher_kwargs = {"width": 32}
    cfg.data = {"_target_": "tests.evaluate.tokens.TokenDataModule", "batch_size": 32}
    with trusting():
        train(cfg, folder / "run")
    return folder / "run"


def test_everything_but_corruptions_is_measured(
    of_tokens: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.02)
    run = Path(shutil.copytree(of_tokens, tmp_path / "run"))
    with trusting():
        values = evaluate_run(run)
        assert open_run(run).data.name == "tokens"
    test = values["student"][values["select"]]["test"]
    assert sum(map(sum, test["confusion"])) == 108, "samples of unknown class do not count"
    assert test["accuracy"] > 0.8 and "kl_t1" in test and values["images"] == 0
    assert values["teacher"]["parameters"] > values["student"]["parameters"] and values["student"]["macs"] > 0
    assert values["student"]["latency"]["64"]["samples_per_second"] > 0
    assert not (run / "evaluation_corruptions.png").exists() and (run / "evaluation_classes.png").is_file()
    done = command(evaluate, run, "--trust")
    assert done.status == 0 and "Corruptions are left out: they are for images, and the data is 'tokens'." in done.out


def test_its_numbers_reproduce(of_tokens: Path) -> None:
    with trusting():
        result = verify(of_tokens)
    assert result.ok and "teacher accuracy" in {check.name for check in result.checks}, result.checks


def test_files_cannot_be_predicted(of_tokens: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "text.txt").write_text("one two")
    done = command(predict, of_tokens, tmp_path / "text.txt", "--trust")
    assert done.status == 2 and done.err.count("\n") == 1
    assert "the run's data is 'tokens'; predict is for images, text and recordings" in done.err


def test_code_that_a_run_names_is_not_imported_unasked(of_tokens: Path, command: Command) -> None:
    done = command(evaluate, of_tokens)
    assert done.status == 2 and "--trust" in done.err and done.err.count("\n") == 1
