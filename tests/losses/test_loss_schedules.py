"""Values that change while a loss trains: by a schedule, or sample by sample with the teacher's confidence."""

import math
from typing import Any

import pytest
import torch

from kd_lightning.losses import KD, Combination, Distillation
from kd_lightning.losses.functional import kd
from kd_lightning.losses.schedule import Schedule
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import UserError

S, T = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
BATCH = Batch(S, torch.tensor([0, 1, 1, 0, 1, 4]), torch.arange(6))


def schedule(shape: str, start: float = 1, end: float = 3, epochs: float = 10) -> dict[str, Any]:
    return {"schedule": shape, "start": start, "end": end, "epochs": epochs}


@pytest.mark.parametrize(
    ("shape", "values"),
    [
        ("linear", {0: 1, 2.5: 1.5, 5: 2, 10: 3, 99: 3}),
        ("cosine", {0: 1, 2.5: 2 - math.sqrt(0.5), 5: 2, 7.5: 2 + math.sqrt(0.5), 10: 3, 99: 3}),
        ("step", {0: 1, 9.99: 1, 10: 3, 99: 3}),
    ],
)
def test_shapes(shape: str, values: dict[float, float]) -> None:
    alpha = Schedule("loss.alpha", schedule(shape))
    for epoch, value in values.items():
        alpha.epoch = epoch
        assert alpha() == pytest.approx(value)
    assert Schedule("loss.alpha", 2.5)() == 2.5
    assert Schedule("loss.alpha", schedule(shape, start=3, end=0)).largest == 3


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"schedule": "linear", "start": 0, "end": 1}, "loss.alpha lacks 'epochs'"),
        (schedule("linaer"), r"loss.alpha.schedule must be one of .*did you mean 'linear'"),
        (schedule("linear", start=-1), "loss.alpha.start must be a number >= 0, got -1"),
        (schedule("linear", epochs=0), "loss.alpha.epochs must be a number > 0, got 0"),
        (schedule("linear") | {"ends": 1}, "loss.alpha has no 'ends'; did you mean 'end'"),
    ],
)
def test_mistakes_name_the_key(wrong: Any, told: str) -> None:
    with pytest.raises(UserError, match=told):
        Schedule("loss.alpha", wrong, ge=0)


def test_every_weight_and_temperature_moves_with_the_epoch() -> None:
    """Within combinations too, whose methods have weights of their own."""
    first = KD(schedule("linear", 2, 6, 2), alpha=schedule("step", 0, 2, 1))
    both = {"a": first, "b": KD(1.0, alpha=1.0)}
    method = Combination(**both, alpha=schedule("linear", 0, 1, 2), ce_weight=schedule("cosine", 1, 0, 2))
    loss = Distillation(method)
    for epoch, alpha, ce_weight, weight, t in ((0.0, 0, 1, 0, 2), (1.0, 0.5, 0.5, 2, 4), (2.0, 1, 0, 2, 6)):
        method.set_epoch(epoch)
        terms = loss(Outputs(S), Outputs(T), BATCH)
        torch.testing.assert_close(terms["a"], weight * kd(S, T, t))
        torch.testing.assert_close(terms["loss"], ce_weight * terms["ce"] + alpha * (terms["a"] + terms["b"]))


@pytest.mark.parametrize("by", ["entropy", "correctness"])
def test_samples_follow_the_teachers_confidence(by: str) -> None:
    """By hand, sample by sample: as a weight, and as a temperature between 1 and T."""
    p = T.softmax(1)
    entropy = -(p * p.log()).sum(1) / math.log(5)
    sure = 1 - entropy if by == "entropy" else p[torch.arange(6), BATCH.y]
    assert sure.min() > 0 and sure.max() < 1
    each = [kd(S[i : i + 1], T[i : i + 1], 4) for i in range(6)]
    got = KD(4.0, adapt="weight", by=by)(Outputs(S), Outputs(T), BATCH)
    torch.testing.assert_close(got, (sure * torch.stack(each)).mean())
    each = [kd(S[i : i + 1], T[i : i + 1], float(1 + 3 * sure[i])) for i in range(6)]
    got = KD(4.0, adapt="temperature", by=by)(Outputs(S), Outputs(T), BATCH)
    torch.testing.assert_close(got, torch.stack(each).mean())


@pytest.mark.parametrize("adapt", ["weight", "temperature"])
@pytest.mark.parametrize("by", ["entropy", "correctness"])
@pytest.mark.parametrize("scale", [0.0, 200.0])
def test_adaptive_kd_is_finite(adapt: str, by: str, scale: float) -> None:
    s = (S.sign() * scale).float().requires_grad_()
    loss = KD(4.0, adapt=adapt, by=by)(Outputs(s), Outputs((T.sign() * scale).float()), BATCH)
    loss.backward()
    assert loss.isfinite() and s.grad is not None and s.grad.isfinite().all()


def test_gradients_of_all_parts_are_added_in_full_precision() -> None:
    """Rounded to the network's bf16 once, not each part by itself."""
    loss = Distillation(KD(2.0, alpha=0.5))
    half = S.bfloat16().requires_grad_()
    exact = half.detach().float().requires_grad_()
    for logits in (half, exact):
        loss(Outputs(logits), Outputs(T.float()), BATCH)["loss"].backward()
    assert half.grad is not None and exact.grad is not None
    assert torch.equal(half.grad, exact.grad.bfloat16())
