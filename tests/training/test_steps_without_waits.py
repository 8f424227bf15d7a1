"""A training step never waits for the device: every loss and path, counted on CUDA tensors that need no GPU.

The backward pass is left out: torch's engine runs none without a GPU.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kd_lightning.data import DigitsDataModule
from kd_lightning.data.images import normalize
from kd_lightning.distiller import Distiller
from kd_lightning.teachers.build import build_teacher
from kd_lightning.teachers.cache.cached import CachedTeacher
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.training.build import build_experiment
from kd_lightning.training.nonfinite import NonFinite
from kd_lightning.training.train_log import TrainLog
from kd_lightning.types import Outputs
from tests.conftest import compose
from tests.fake_cuda import Waits, fake_cuda, to_fake
from tests.losses.learner import SMALL
from tests.losses.test_methods import every

CUDA = torch.device("cuda", 0)
pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="needs PyTorch built for CUDA")


@pytest.fixture(autouse=True)
def no_fake_tensors_are_kept():
    normalize._affine.cache_clear()
    yield
    normalize._affine.cache_clear()


def steps(*words: str) -> Waits:
    """What was counted in the third and fourth step of an epoch."""
    run = build_experiment(compose("data.val_size=0", "model.teacher_weights=auto", *words))
    teacher = None
    if run.teachers:
        teacher = build_teacher(
            run.teachers,
            run.data,
            layers=run.loss.teacher_layers,
            fusion=run.loss.fusion,
            temperatures=[1.0] * len(run.teachers) if run.calibrate_teacher else None,
        )
    distiller = Distiller(run.student, teacher, run.loss, num_classes=10, optimizer=run.optimizer)
    with fake_cuda() as waits:
        to_fake(distiller, CUDA)
        distiller._device = CUDA
        optimizer = run.optimizer(distiller.parameters())
        trainer: Any = SimpleNamespace(
            current_epoch=0,
            num_training_batches=100,
            accumulate_grad_batches=1,
            is_last_batch=False,
            optimizers=[optimizer],
            global_step=0,
        )
        distiller.trainer = trainer
        distiller.log_terms = False
        guard = NonFinite(Path("nowhere"), 50)
        callbacks = [guard, TrainLog(50, guard)]
        for callback in callbacks:
            callback.on_train_epoch_start(trainer, distiller)
        batches = run.data.splits["train"].batches(torch.arange(320), 64, 0, 0, CUDA)
        for i in range(1, 5):
            if i == 3:
                waits.names.clear()
                waits.on_cpu.clear()
            batch = next(batches)
            for callback in callbacks:
                callback.on_train_batch_start(trainer, distiller, batch, i)
            terms = distiller.training_step(batch, i)
            for parameter in distiller.parameters():
                parameter.grad = torch.zeros_like(parameter)
            optimizer.step()
            for callback in callbacks:
                callback.on_train_batch_end(trainer, distiller, terms, batch, i)
    return waits


@every
def test_no_loss_waits(preset: str) -> None:
    waits = steps(f"loss={preset}", *SMALL.get(preset, ()))
    assert waits.names == [] and waits.on_cpu == {}


@pytest.mark.parametrize(
    "words",
    [
        "loss=kd_adaptive loss.by=correctness loss.adapt=temperature",
        "loss=kd loss.divergence=jensen_shannon data.label_fraction=0.5",
        "loss=kd model.teacher=[resnet8,resnet14] model.teacher_weighting=[0.3,0.7]",
        "loss=kd model.teacher=[resnet8,resnet14] model.teacher_weighting=learned",
        "loss=kd model.teacher=[resnet8,resnet14] model.teacher_weighting=[0.3,0.7] loss.fusion=losses",
        "loss=kd model.teacher=[resnet8,resnet14] loss.fusion=confidence",
        "loss=kd model.teacher=[resnet8,resnet14] loss.fusion=entropy",
        "loss=kd data.augment.cutout=2 data.augment.mixup=0.2 data.augment.cutmix=1",
    ],
)
def test_no_path_waits(words: str) -> None:
    waits = steps(*words.split())
    assert waits.names == [] and waits.on_cpu == {}


class Fixed(LiveTeacher):
    """Says the same to everyone, and notes how many ask."""

    def __init__(self) -> None:
        super().__init__(torch.nn.Identity())
        self.sizes: list[int] = []

    def __call__(self, batch: Any) -> Outputs:
        self.sizes.append(len(batch.y))
        return Outputs(torch.ones(len(batch.y), 10, device=batch.y.device))


def cached(monkeypatch: pytest.MonkeyPatch, **values: Any) -> tuple[CachedTeacher, Fixed, list[torch.Tensor]]:
    """A teacher on fake tensors, and what it writes into its table."""
    written: list[torch.Tensor] = []
    table: Any = SimpleNamespace(write=lambda keys, logits: written.append(logits))
    data, live = DigitsDataModule(batch_size=64, **values), Fixed()
    data.setup()
    teacher = CachedTeacher(live, None, data, torch.float16)
    monkeypatch.setattr(CachedTeacher, "table", lambda self: table)
    return teacher, live, written


def test_missing_answers_are_asked_in_batches_of_one_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """For which a GPU chooses, and `compile` makes, its kernels once."""
    teacher, live, written = cached(monkeypatch)
    with fake_cuda() as waits:
        answers = torch.full((len(teacher._data.splits["train"]), 10), torch.nan, device=CUDA, dtype=torch.float16)
        for count in (150, 600):
            waits.names.clear()
            teacher._ask(torch.arange(count), torch.arange(count) * 9, answers)
    assert live.sizes == 13 * [64] and [len(logits) for logits in written] == [150, 600]
    assert waits.names == ["_to_copy between devices"], "for the order of the epoch, not for a batch"


def test_views_without_numbers_are_asked_as_they_are_shown_and_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, live, written = cached(monkeypatch, augment={"cutout": 2})
    with fake_cuda() as waits:
        teacher._looked = True  # and something was missing
        for batch in teacher._data.splits["train"].batches(torch.arange(192), 64, 0, 0, CUDA):
            waits.names.clear()
            assert teacher(batch).logits.device == CUDA
            assert waits.names == [] and written == []
        assert live.sizes == [64, 64, 64]
        monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: tensor)
        teacher.end_epoch()
    assert [len(logits) for logits in written] == [192]
