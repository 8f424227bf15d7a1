"""Features that meet: each pair ended in a traceback, or silently did something else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from kd_lightning import runs
from kd_lightning.evaluation.opened import open_run
from kd_lightning.evaluation.overrides import overridden
from kd_lightning.training.build import build_experiment
from kd_lightning.training.fill import export
from kd_lightning.training.run import train
from kd_lightning.training.tasks import one_task
from kd_lightning.utils.checks import UserError
from tests.conftest import Finished, compose

Cli = Callable[..., Finished]
SMALL = ("loss=crd", "loss.negatives=64", "data.train_size=320")


def test_a_student_that_learned_by_crd_is_evaluated(teacher_run: Path, tmp_path: Path) -> None:
    """Its checkpoint holds CRD's memory beside the weights."""
    train(compose(*SMALL, f"model.teacher_weights={teacher_run}"), tmp_path / "run")
    assert set(open_run(tmp_path / "run").students) == {"last", "best"}


def test_the_schedule_of_a_resumed_run_counts_the_same_steps(cli: Cli, tmp_path: Path) -> None:
    """With half the steps an epoch the learning rate was 0 from there on, without a word."""
    assert cli("loss=ce", "trainer.max_epochs=2", "hydra.run.dir=r").status == 0
    done = cli("resume=r", "trainer.max_epochs=4", "trainer.accumulate_grad_batches=2", tiny=False)
    assert done.status == 2 and "resume: the number of steps of an epoch is 3, and was 5" in done.err


def test_the_last_student_is_deployed_where_no_epoch_was_validated(tmp_path: Path) -> None:
    train(compose("loss=ce", "select=best", "trainer.max_epochs=1", "trainer.max_steps=2"), tmp_path / "run")
    found = runs.read(tmp_path / "run").metrics
    assert found["select"] == "last" and set(found["student"]) >= {"last"} and "best" not in found["student"]


def test_a_part_of_the_validation_batches_is_no_part_of_the_views(teacher_run: Path, tmp_path: Path) -> None:
    words = (f"model.teacher_weights={teacher_run}", "trainer.limit_val_batches=0.5", "data.eval_batch_size=32")
    metrics = train(compose(*words, "data.train_size=64"), tmp_path / "run")
    assert metrics["teacher"]["train_views"]


def test_a_loss_that_reads_labels_without_a_teacher_is_refused_too() -> None:
    words = ("data=digits_tasks", "+data.task_label_fraction.parity=0.1", "loss=teacher_free")
    with pytest.raises(UserError, match="TeacherFree reads labels"):
        build_experiment(compose(*words))


def test_one_task_trains_as_it_does_among_others() -> None:
    methods = {"digit": {"_target_": "kd_lightning.losses.CE"}, "parity": {"_target_": "kd_lightning.losses.CE"}}
    cfg = compose("data=digits_tasks", "data.task=digit")
    cfg.loss = OmegaConf.create(
        {"_target_": "kd_lightning.losses.Tasks", "methods": methods, "label_smoothing": 0.1, "fusion": "logits"}
    )
    loss = one_task(cfg).loss
    assert (loss._target_, loss.label_smoothing, loss.fusion) == ("kd_lightning.losses.CE", 0.1, "logits")


def test_labels_are_counted_of_all_samples() -> None:
    cfg = compose("data=digits_tasks", "data.task=parity", "+data.task_label_fraction.parity=0.25", "loss=ce")
    data = build_experiment(cfg).data
    assert data.labelled is not None and len(data.labelled) == data.sizes["train"]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("model.teacher_calibration=temperature", "leave out model.teacher_calibration"),
        ("model.teacher_weighting=learned", "model.teacher_weighting=learned is trained with a student"),
    ],
)
def test_answers_are_not_stored_as_if_they_were_others(teacher_run: Path, tmp_path: Path, word: str, told: str) -> None:
    both = ("model.teacher=[resnet8,resnet8]", f"model.teacher_weights=[{teacher_run},{teacher_run}]")
    with pytest.raises(UserError, match=told):
        export(compose(*both, word), tmp_path / "said.npz")


def test_an_evaluation_on_other_data_sees_them_as_training_did(tmp_path: Path) -> None:
    """`data=NAME` brought its own normalization, of which the student knew nothing."""
    train(compose("loss=ce", "data.normalize={mean: [0.2, 0.2, 0.2], std: [0.5, 0.5, 0.5]}"), tmp_path / "run")
    opened: Any = open_run(tmp_path / "run", ["data=digits"])
    assert overridden(opened.run.config, ["data=digits"]).data.normalize != opened.run.config.data.normalize
    assert torch.tensor(opened.data.normalize[0]).allclose(torch.tensor([0.2, 0.2, 0.2]))
