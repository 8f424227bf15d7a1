"""What the log of a training says about where the time went."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from kd_lightning.training.nonfinite import NonFinite
from kd_lightning.training.run import train
from kd_lightning.training.train_log import TrainLog
from kd_lightning.utils import timing
from kd_lightning.utils.timing import Stopwatch
from tests.conftest import compose


def training(device: str, batches: int, accumulate: int = 1) -> tuple[Any, Any]:
    """Return a Trainer and a module, as far as the log knows them."""
    trainer = SimpleNamespace(
        num_training_batches=batches,
        accumulate_grad_batches=accumulate,
        strategy=SimpleNamespace(reduce=lambda own, reduce_op: own),
        optimizers=[SimpleNamespace(param_groups=[{"lr": 0.1}])],
        loggers=[],
        global_step=0,
    )
    return trainer, SimpleNamespace(watch=Stopwatch(), device=torch.device(device))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("every", [1, 4, 5, 50])
def test_work_once_an_epoch_has_its_true_share(device, every, monkeypatch):
    """A step takes 1 s, and 10 s more in the first one of an epoch (a teacher that is asked ahead): 10 of 20 s."""
    now = 0.0
    monkeypatch.setattr(timing, "now", lambda: now)
    guard: Any = NonFinite(Path("nowhere"), 50)
    log = TrainLog(every, guard)
    trainer, module = training(device, batches=10)
    batch: Any = SimpleNamespace(size=8)
    for _ in range(3):
        log.on_train_epoch_start(trainer, module)
        for i in range(10):
            trainer.is_last_batch = i == 9
            log.on_train_batch_start(trainer, module, batch, i)
            now += 10.0 * (i == 0)
            module.watch.lap("teacher")
            now += 1.0
            log.on_after_backward(trainer, module)
            log.on_train_batch_end(trainer, module, {"loss": torch.tensor(1.0)}, batch, i)
        log.on_train_epoch_end(trainer, module)
    shares = module.watch.shares()
    # the first window of the run is left out as start-up, and with it an epoch's beginning
    windows = -(-10 // every)
    student = 30 - (every if windows > 1 else 10)
    assert shares["teacher"] == pytest.approx(20 / (20 + student))
    assert shares["student"] == pytest.approx(student / (20 + student))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("every", [1, 3, 40])
def test_a_step_of_several_batches_is_measured_whole(device, every, monkeypatch):
    """A batch takes 1 s, the step after each fourth 4 s, a validation after each tenth batch 100 s."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(timing, "now", lambda: clock.now)
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    guard: Any = NonFinite(Path("nowhere"), 50)
    log = TrainLog(every, guard)
    trainer, module = training(device, batches=400, accumulate=4)
    batch: Any = SimpleNamespace(size=8)
    log.on_train_epoch_start(trainer, module)
    for i in range(400):
        trainer.is_last_batch = i == 399
        log.on_train_batch_start(trainer, module, batch, i)
        clock.now += 1.0
        log.on_after_backward(trainer, module)
        clock.now += 4.0 * (i % 4 == 3)
        log.on_train_batch_end(trainer, module, {"loss": torch.tensor(1.0)}, batch, i)
        if i % 10 == 9:
            log.on_validation_start(trainer, module)
            clock.now += 100.0
            log.on_validation_end(trainer, module)
    shares = module.watch.shares()
    assert shares["optimizer"] == pytest.approx(0.5, abs=0.06 if device == "cuda" and every == 3 else 0.01)
    assert shares.get("data", 0.0) == 0.0
    assert log.mean_speed() == pytest.approx(8 / 2, rel=0.02), "8 samples in 1 s, and a quarter of 4 s"


def test_the_loss_of_accumulated_batches_is_their_mean(tmp_path):
    metrics = train(compose("loss=ce", "trainer.accumulate_grad_batches=4"), tmp_path / "run")
    assert metrics["train"]["loss"] == pytest.approx(metrics["train"]["ce"], rel=1e-5)
