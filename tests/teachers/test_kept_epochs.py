"""`RUN@best`, `RUN@last` and `RUN@EPOCH`: a run's checkpoint as teacher, and the epochs that stay for it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from kd_lightning import runs
from kd_lightning.evaluation.verify import verify
from kd_lightning.models import create_model
from kd_lightning.models.checkpoints import load_weights
from kd_lightning.runs.students import weights_file
from kd_lightning.training.run import train
from kd_lightning.training.teacher_stage import kept_epochs
from kd_lightning.utils.checks import UserError
from tests.conftest import compose

pytestmark = pytest.mark.usefixtures("no_pictures")
KEY = "model.teacher_weights"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four epochs, of which the first and the third stay."""
    out = tmp_path_factory.mktemp("kept") / "run"
    train(compose("loss=ce", "trainer.max_epochs=4", "trainer.keep_epochs=[1,3]"), out)
    return out


def test_an_epoch_that_stays_is_what_a_training_of_so_many_epochs_has(kept: Path, tmp_path: Path) -> None:
    assert torch.load(weights_file(f"{kept}@3", KEY), weights_only=True)["epoch"] + 1 == 3
    other = ("loss=ce", "trainer.max_epochs=1", "scheduler=constant")
    train(compose(*other), tmp_path / "short")
    train(compose(*other[::2], "trainer.max_epochs=2", "trainer.keep_epochs=[1]"), tmp_path / "long")
    nets = [create_model("resnet8", 10, image_size=8) for _ in range(2)]
    for net, path in zip(nets, (tmp_path / "short@last", tmp_path / "long@1"), strict=True):
        load_weights(net, weights_file(path, KEY))
    states = [net.state_dict() for net in nets]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_best_and_last_by_name_and_by_number(kept: Path) -> None:
    student = runs.read(kept).metrics["student"]
    assert weights_file(f"{kept}@best", KEY) == kept / "best.ckpt"
    assert weights_file(f"{kept}@last", KEY) == weights_file(f"{kept}@4", KEY) == kept / "last.ckpt"
    best = weights_file(f"{kept}@{student['best']['epoch']}", KEY)
    assert torch.load(best, weights_only=True)["epoch"] + 1 == student["best"]["epoch"]


def test_an_epoch_teaches_and_is_found_again(kept: Path, tmp_path: Path) -> None:
    cfg = compose(f"{KEY}={kept}@3", "model.teacher_cache=off")
    metrics = train(cfg, tmp_path / "run")
    assert metrics["teacher"]["weights"][0]["absolute"] == str(kept / "epoch=3.ckpt")
    result = verify(tmp_path / "run")
    assert result.ok and "teacher accuracy" in {check.name for check in result.checks}, result.notes


def test_a_trained_teacher_keeps_epochs_on_its_way(tmp_path: Path) -> None:
    assert kept_epochs(200) == [50, 100, 150] and kept_epochs(3) == [1, 2] and kept_epochs(1) == []
    train(compose(f"teacher_stage.dir={tmp_path / 'teachers'}", "model.teacher_cache=off"), tmp_path / "run")
    [folder] = [path for path in (tmp_path / "teachers").iterdir() if path.is_dir()]
    assert [*runs.kept_checkpoints(folder)] == ["best", "last", "1", "2"]


@pytest.mark.parametrize(
    "which, told",
    [
        ("2x", "has no checkpoint '2x', only"),
        ("77", r"has no checkpoint '77', only best, last, 1, 3.* 4; trainer.keep_epochs="),
    ],
)
def test_a_checkpoint_that_is_not_there_is_told_with_those_that_are(kept: Path, which: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        weights_file(f"{kept}@{which}", KEY)


def test_no_run_an_unfinished_one_and_a_damaged_checkpoint(kept: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model\.teacher_weights: nowhere@20 needs a run directory before the @"):
        weights_file("nowhere@20", KEY)
    runs.write_config(tmp_path, runs.read_config(kept))
    (tmp_path / "epoch=2.ckpt").write_bytes((kept / "epoch=3.ckpt").read_bytes())
    assert weights_file(f"{tmp_path}@2", KEY).name == "epoch=2.ckpt"
    with pytest.raises(UserError, match=r"did not finish; go on with resume=.*, or name an epoch that it keeps"):
        weights_file(f"{tmp_path}@last", KEY)
    (tmp_path / "epoch=2.ckpt").write_bytes((kept / "epoch=3.ckpt").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"epoch=2\.ckpt is damaged"):
        weights_file(f"{tmp_path}@2", KEY)


@pytest.mark.parametrize(
    "typed, told",
    [
        ("[5]", "trainer.keep_epochs must be a whole number >= 1 and <= 1, got 5"),
        ("[0]", "trainer.keep_epochs must be a whole number >= 1"),
        ("[half]", "'half'"),
        ("3", "trainer.keep_epochs must be a list of epochs such as [10,20], got 3"),
    ],
)
def test_epochs_that_there_are_not(cli: Any, typed: str, told: str) -> None:
    done = cli("loss=ce", f"trainer.keep_epochs={typed}")
    assert done.status == 2 and told in done.err and len(done.err.splitlines()) == 1


def test_the_compression_of_a_run_that_kept_epochs_keeps_none(kept: Path) -> None:
    from kd_lightning.deploy.recipe import training_config
    from kd_lightning.evaluation.opened import open_run

    config = training_config(open_run(kept), "prune", None, True, [])
    assert config.trainer.keep_epochs == []
