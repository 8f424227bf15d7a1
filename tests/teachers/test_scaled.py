"""A teacher calibrated by one temperature: it predicts the same classes, and is found again as it taught."""

from pathlib import Path

import pytest
import torch

from kd_lightning import runs
from kd_lightning.evaluation.verify import verify
from kd_lightning.models import create_model
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.teachers.scaled import ScaledTeacher
from kd_lightning.training.run import train
from kd_lightning.types import Batch
from kd_lightning.utils.checks import UserError
from tests.conftest import compose

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_logits_are_divided_and_classes_stay() -> None:
    live = LiveTeacher(create_model("resnet8", 10, image_size=8))
    batch = Batch(torch.randn(6, 3, 8, 8), torch.arange(6), torch.arange(6))
    plain, scaled = live(batch).logits, ScaledTeacher(live, 2.5)(batch).logits
    assert torch.equal(scaled, plain / 2.5) and torch.equal(scaled.argmax(1), plain.argmax(1))


def test_the_teacher_of_a_run_is_calibrated_and_found_again(teacher_run: Path, tmp_path: Path) -> None:
    cache = f"model.teacher_cache={tmp_path / 'cache'}"
    plain = train(compose(f"model.teacher_weights={teacher_run}", cache), tmp_path / "plain")
    words = (f"model.teacher_weights={teacher_run}", cache, "model.teacher_calibration=temperature")
    metrics = train(compose(*words), tmp_path / "run")
    assert metrics["teacher"]["temperatures"] != [1.0]
    assert metrics["teacher"]["val"]["accuracy"] == plain["teacher"]["val"]["accuracy"]
    assert metrics["teacher"]["val"]["nll"] < plain["teacher"]["val"]["nll"]
    assert len(list((tmp_path / "cache").iterdir())) == 1  # one table serves every temperature
    assert runs.read(tmp_path / "run").metrics["teacher"]["temperatures"] == metrics["teacher"]["temperatures"]
    assert verify(tmp_path / "run").ok


def test_without_validation_there_is_nothing_to_fit_on(teacher_run: Path, tmp_path: Path) -> None:
    words = (f"model.teacher_weights={teacher_run}", "model.teacher_calibration=temperature", "data.val_size=0")
    with pytest.raises(UserError, match="fitted on validation samples"):
        train(compose(*words), tmp_path / "run")
