"""The checks before a training, where pixels lie on a GPU: on CUDA tensors that need none."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kd_lightning import KD, Distiller
from kd_lightning.data import DigitsDataModule
from kd_lightning.teachers.stored import StoredAnswers, StoredTeacher
from kd_lightning.training.fill import _open
from kd_lightning.training.teacher_check import BATCHES, check_teacher
from kd_lightning.training.trainer import num_processes, resolve_trainer
from kd_lightning.utils import hardware
from tests.conftest import compose
from tests.fake_cuda import fake_cuda

CUDA = torch.device("cuda", 0)
needs_cuda_build = pytest.mark.skipif(torch.version.cuda is None, reason="needs PyTorch built for CUDA")


def trainer_on(device: torch.device) -> Any:
    return SimpleNamespace(
        strategy=SimpleNamespace(root_device=device),
        global_rank=0,
        world_size=1,
        overfit_batches=0,
        current_epoch=0,
        limit_val_batches=1.0,
    )


@needs_cuda_build
def test_without_validation_a_teacher_is_measured_where_the_pixels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader is asked before the Trainer has met the data."""
    # fake tensors have no values, not even that of a temperature
    monkeypatch.setattr("kd_lightning.training.teacher_check.wants_temperature", lambda *_: False)
    seen = []

    def validate(distiller: Any, batches: Any, **_: Any) -> None:
        seen.extend(batch.x.device for batch in batches.dataset)
        trainer.callback_metrics = {f"val/teacher_{name}": 0.9 for name in ("accuracy", "entropy", "ece")}

    trainer = trainer_on(CUDA)
    trainer.validate = validate
    data = DigitsDataModule(val_size=0)
    data.setup()
    distiller = Distiller(torch.nn.Flatten(), torch.nn.Flatten(), KD(temperature=4), num_classes=10)
    with fake_cuda():
        check_teacher(trainer, distiller, data)
    assert len(seen) == BATCHES and set(seen) == {CUDA}


def test_stored_answers_are_measured_where_the_pixels_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """`data.device=cuda` makes no batches on a CPU."""
    devices = []
    data = DigitsDataModule()
    data.setup()
    batches = type(data.splits["train"]).batches

    def watched(self: Any, order: Any, size: int, seed: int, epoch: int, device: torch.device) -> Any:
        devices.append(device)
        return batches(self, order, size, seed, epoch, torch.device("cpu"))

    monkeypatch.setattr(type(data.splits["train"]), "batches", watched)
    answers = torch.nn.functional.one_hot(data.splits["train"].labels, 10).float()  # type: ignore[attr-defined]
    teacher = StoredTeacher(StoredAnswers(answers, 10))
    check_teacher(trainer_on(CUDA), Distiller(torch.nn.Flatten(), teacher, KD(), num_classes=10), data)
    assert devices == [CUDA]


@pytest.mark.parametrize(
    ("words", "processes"), [("trainer.num_nodes=2", 2), ("trainer.devices=auto", 1), ("trainer.devices=2", 2)]
)
def test_all_processes_count(words: str, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "usable_cores", lambda: 8)
    assert num_processes(resolve_trainer(compose(words).trainer)) == processes


@pytest.mark.parametrize("devices", ["auto", "-1"])
def test_all_gpus_count(devices: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("is_available", True), ("device_count", 4), ("get_device_capability", (9, 0))):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr("lightning.fabric.accelerators.cuda.num_cuda_devices", lambda: 4)
    node = compose(f"trainer.devices={devices}", "trainer.accelerator=gpu", "trainer.precision=32-true").trainer
    assert num_processes(resolve_trainer(node)) == 4


def test_the_cache_is_filled_with_the_arithmetic_of_a_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 changes answers: set after them, a table would hold others than a run asks for."""
    told: list[str] = []
    monkeypatch.setattr(hardware, "use_tf32", lambda: told.append("tf32"))
    monkeypatch.setattr("kd_lightning.training.fill.get_teacher", lambda *_: told.append("teacher") or (None, []))
    monkeypatch.setattr("kd_lightning.training.asking.Fabric", lambda **_: None)
    run: Any = SimpleNamespace(
        trainer=SimpleNamespace(accelerator="gpu", devices=1, precision="32-true"), data=DigitsDataModule()
    )
    with pytest.raises(Exception, match="nothing to fill"):
        _open(compose(), run, "fill")
    assert told == ["tf32", "teacher"]
