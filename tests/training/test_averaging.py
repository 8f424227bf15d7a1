"""EMA: not the teacher, not before its start, and what is tested, kept and deployed is the average."""

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from kd_lightning import runs
from kd_lightning.distiller import Distiller
from kd_lightning.losses import KD
from kd_lightning.runs.students import load_student
from kd_lightning.training.run import train
from tests.conftest import compose

pytestmark = pytest.mark.usefixtures("no_pictures")


class ByHand(pl.Callback):
    """Keeps the same average beside the callback's."""

    decay, start = 0.9, 0
    average: dict[str, torch.Tensor] = {}  # noqa: RUF012

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: object) -> None:
        if trainer.global_step <= self.start:
            return
        now = {k: v.detach().clone() for k, v in pl_module.student.state_dict().items() if v.is_floating_point()}
        before = ByHand.average
        ByHand.average = {k: self.decay * before[k] + (1 - self.decay) * v if before else v for k, v in now.items()}


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {k: v for k, v in load_student(path)[0].state_dict().items() if v.is_floating_point()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=1e-5) for k in a)


def ema(start: int | None = None) -> list[str]:
    by_hand = f"+callbacks.by_hand={{_target_: {__name__}.ByHand}}"
    return [
        *("loss=ce", "trainer.max_epochs=2", "callbacks=ema", "callbacks.ema.decay=0.9", by_hand),
        f"callbacks.ema.update_starting_at_step={'null' if start is None else start}",
    ]


def test_the_average_is_deployed_and_was_tested(tmp_path: Path) -> None:
    ByHand.average = {}
    metrics = train(compose(*ema()), tmp_path / "run")
    assert same(weights(tmp_path / "run"), ByHand.average)
    state = torch.load(tmp_path / "run" / runs.LAST, weights_only=True)
    kept = {k.removeprefix("student."): v for k, v in state["state_dict"].items() if k.startswith("student.")}
    assert same({k: kept[k] for k in ByHand.average}, ByHand.average)
    last, best = metrics["student"]["last"], metrics["student"]["best"]
    if best["epoch"] == last["epoch"]:
        assert best["val"] == last["val"]


def test_before_its_start_the_weights_themselves_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = train(compose("loss=ce", "trainer.max_epochs=2"), tmp_path / "plain")
    late = train(compose(*ema(start=1000)), tmp_path / "late")
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "late"))
    assert plain["student"]["last"] == late["student"]["last"]
    assert "no step of 10 entered the average; the weights themselves count" in capsys.readouterr().out


def test_the_best_epoch_is_tested_with_its_own_average(tmp_path: Path) -> None:
    metrics = train(compose(*ema(start=4), "select=best", "optimizer.lr=0.2"), tmp_path / "run")
    state = torch.load(tmp_path / "run" / runs.BEST, weights_only=True)
    kept = {k.removeprefix("student."): v for k, v in state["state_dict"].items() if k.startswith("student.")}
    deployed = weights(tmp_path / "run")
    assert same({k: kept[k] for k in deployed}, deployed) and metrics["select"] == "best"


def test_a_run_that_goes_on_ends_with_the_same_average(tmp_path: Path) -> None:
    train(compose(*ema(), "scheduler=constant"), tmp_path / "whole")
    words = [word for word in ema() if not word.startswith("trainer.max_epochs")]
    train(compose(*words, "scheduler=constant", "trainer.max_epochs=1"), tmp_path / "parts")
    train(compose(*words, "scheduler=constant", "trainer.max_epochs=2"), tmp_path / "parts", resume=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_copies_of_a_distiller_share_the_teacher() -> None:
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    distiller = Distiller(student, teacher, KD(), num_classes=3)
    twin = copy.deepcopy(distiller)
    assert twin.teacher is distiller.teacher and twin.student is not distiller.student
