"""Label smoothing of the cross-entropy, by hand."""

import math

import pytest
import torch

from kd_lightning.losses.ce import task_loss
from kd_lightning.losses.distillation import Distillation
from kd_lightning.training.objective import build_loss
from kd_lightning.types import UNLABELED, Batch, Mixed, Outputs
from tests.conftest import compose

LOGITS = torch.tensor([[math.log(6.0), math.log(3.0), 0.0]])  # probabilities 0.6, 0.3, 0.1
SMOOTH = -(0.9 * math.log(0.6) + 0.1 / 3 * (math.log(0.6) + math.log(0.3) + math.log(0.1)))


def batch(y: int, mixed: Mixed | None = None) -> Batch:
    return Batch(torch.zeros(1), torch.tensor([y]), torch.tensor([0]), None, mixed)


def test_by_hand() -> None:
    assert float(task_loss(LOGITS, batch(0), smoothing=0.1)) == pytest.approx(SMOOTH, rel=1e-6)
    assert float(task_loss(LOGITS, batch(0), True, 0.1)) == pytest.approx(SMOOTH, rel=1e-6)
    assert float(task_loss(LOGITS, batch(UNLABELED), True, 0.1)) == 0


def test_a_mixed_picture_by_hand() -> None:
    mixed = batch(0, Mixed(torch.tensor([2]), torch.tensor([0.75]), torch.tensor([0])))
    even = -(math.log(0.6) + math.log(0.3) + math.log(0.1)) / 3
    wanted = 0.9 * -(0.75 * math.log(0.6) + 0.25 * math.log(0.1)) + 0.1 * even
    assert float(task_loss(LOGITS, mixed, smoothing=0.1)) == pytest.approx(wanted, rel=1e-6)
    assert float(task_loss(LOGITS, mixed, True, 0.1)) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("name", ["ce", "kd", "crd", "dml", "simkd"])
def test_it_is_a_key_of_every_loss(name: str) -> None:
    cfg = compose(f"loss={name}", "loss.label_smoothing=0.1")
    loss: Distillation = build_loss(cfg.loss, cfg.model)
    assert loss.method.label_smoothing == 0.1
    loss.is_on = False
    found = loss(Outputs(LOGITS), None, batch(0))
    assert float(found["ce"]) == pytest.approx(SMOOTH, rel=1e-6)
