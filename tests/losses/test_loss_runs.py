"""Losses in whole runs: from the configuration to the run directory, stopped and resumed."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kd_lightning import runs
from kd_lightning.losses import Method
from kd_lightning.models import create_model
from kd_lightning.runs.students import load_student
from kd_lightning.training.build import build_experiment
from kd_lightning.training.run import train
from kd_lightning.utils.checks import UserError
from tests.conftest import compose
from tests.losses.learner import SMALL, flat
from tests.losses.test_methods import OF_LOGITS, WITH_PARAMETERS, every


@pytest.mark.usefixtures("no_pictures")
@every
def test_whole_run_in_bf16(preset: str, tmp_path: Path, teacher_run: Path) -> None:
    """From the configuration to the run directory, which holds the student alone."""
    out = tmp_path / "run"
    brief = ("data.train_size=64", "data.batch_size=32", "trainer.precision=bf16-mixed", "trainer.limit_test_batches=1")
    weights = f"model.teacher_weights={teacher_run}"
    cache = f"model.teacher_cache={tmp_path}" if preset in OF_LOGITS else "model.teacher_cache=off"
    metrics = train(compose(f"loss={preset}", weights, cache, "data.val_size=0", *brief, *SMALL.get(preset, ())), out)
    assert metrics["precision"] == "bf16-mixed"
    deployed = load_file(out / "student.safetensors")
    if preset != "simkd":
        assert deployed.keys() == create_model("resnet8", 10, image_size=8).state_dict().keys()
    checkpoint = saved(out)
    assert any(k.startswith("loss.") for k in checkpoint) == (preset in WITH_PARAMETERS)
    assert all(v.isfinite().all() for v in checkpoint.values())


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    "preset", ["crd", "dml", "ctkd", *(pytest.param(one, marks=pytest.mark.slow) for one in ("vid", "simkd"))]
)
def test_a_resumed_run_equals_one_that_was_not_stopped(preset: str, tmp_path: Path, teacher_run: Path) -> None:
    brief = ("data.train_size=64", "data.batch_size=32", "data.val_size=0", "trainer.limit_test_batches=1")
    words = (
        f"loss={preset}",
        f"model.teacher_weights={teacher_run}",
        *brief,
        "scheduler=constant",
        *SMALL.get(preset, ()),
    )
    train(compose(*words, "trainer.max_epochs=2"), tmp_path / "straight")
    train(compose(*words, "trainer.max_epochs=1"), tmp_path / "stopped")
    train(compose(*words, "trainer.max_epochs=2"), tmp_path / "stopped", resume=True)
    assert_equal(saved(tmp_path / "straight"), saved(tmp_path / "stopped"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("loss=dist data.batch_size=1", "DIST compares samples with each other and needs 2 or more"),
        ("loss=rkd data.batch_size=2", "needs 3 or more in each batch, got 320 samples in batches of 2"),
        ("loss=rkd data.train_size=66", "66 samples in batches of 64, of which the last of an epoch has 2"),
        ("loss=reviewkd data.batch_size=1", "ReviewKD"),
    ],
)
def test_too_few_are_told_before_training(words: str, told: str) -> None:
    with pytest.raises(UserError, match=f"data.batch_size: .*{told}"):
        build_experiment(compose(*words.split()))
    build_experiment(compose(*words.split(), "loss.alpha=0"))


@pytest.mark.usefixtures("no_pictures")
def test_training_tells_the_time(tmp_path: Path, teacher_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a fraction of epochs, step by step."""
    told: list[float] = []
    monkeypatch.setattr(Method, "set_epoch", lambda self, epoch: told.append(epoch))
    brief = ("data.train_size=64", "data.batch_size=16", "trainer.max_epochs=2")
    train(compose(f"model.teacher_weights={teacher_run}", *brief), tmp_path / "run")
    assert told == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    "loss", ["kd", "crd", *(pytest.param(one, marks=pytest.mark.slow) for one in ("ctkd", "srrl"))]
)
def test_the_training_does_not_notice_that_gradients_are_compared(
    loss: str, teacher_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses with and without state, random draws and parameters of their own."""
    cfg = compose(f"loss={loss}", f"model.teacher_weights={teacher_run}", "model.teacher_cache=off")
    train(cfg, tmp_path / "with")
    monkeypatch.setattr("kd_lightning.distiller.ratios", lambda *_: {})
    train(cfg, tmp_path / "without")
    assert_equal(saved(tmp_path / "with"), saved(tmp_path / "without"))


@pytest.mark.usefixtures("no_pictures")
def test_a_simkd_run_is_rebuilt_from_its_folder(tmp_path: Path, teacher_run: Path) -> None:
    """It deploys more than the student: what is saved must be what was tested."""
    words = (f"model.teacher_weights={teacher_run}", "loss=simkd", "trainer.max_epochs=2")
    metrics = train(compose(*words), tmp_path / "run")
    model, _ = load_student(tmp_path / "run")
    teacher, _ = load_student(teacher_run)
    assert sum(p.numel() for p in model.parameters()) == metrics["student"]["parameters"]
    assert torch.equal(model.head.weight, teacher.fc.weight), "the classifier is the teacher's own"
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 10)


def saved(run: Path) -> dict[str, torch.Tensor]:
    """All tensors and numbers of the last checkpoint."""
    state = torch.load(run / runs.LAST, weights_only=True)["state_dict"]
    return {name: torch.as_tensor(value) for name, value in flat(state).items()}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
