"""SimKD deploys more than the student: what is saved must be what was tested."""

import pytest
import torch

from kd_lightning import runs
from kd_lightning.train import train
from tests.conftest import compose


@pytest.mark.usefixtures("no_pictures")
def test_a_simkd_run_is_rebuilt_from_its_folder(tmp_path, teacher_run):
    metrics = train(
        compose(f"model.teacher_weights={teacher_run}", "loss=simkd", "trainer.max_epochs=2"), tmp_path / "run"
    )
    model, about = runs.load_student(tmp_path / "run")
    teacher, _ = runs.load_student(teacher_run)
    assert sum(p.numel() for p in model.parameters()) == metrics["student"]["parameters"]
    assert torch.equal(model.head.weight, teacher.fc.weight), "the classifier is the teacher's own"
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, about["num_classes"])
