"""The ratio of the two gradients: against closed forms, in any precision."""

import pytest
import torch

from kd_lightning.losses import CE, KD, Distillation
from kd_lightning.losses.balance import kd_over_ce
from kd_lightning.types import Batch, Outputs

Y = torch.tensor([0, 1, 2, 0, 1])
Z, T = (torch.randn(5, 3, generator=torch.Generator().manual_seed(k)) for k in (0, 1))


def ratio(loss: Distillation, z: torch.Tensor, t: torch.Tensor = T) -> torch.Tensor | None:
    z = z.clone().requires_grad_()
    terms = loss(Outputs(z), Outputs(t), Batch(z, Y, Y))
    found = kd_over_ce(loss, terms, z)
    terms["loss"].backward()  # the graph is still there
    assert z.grad is not None and z.grad.isfinite().all()
    return found


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_against_the_gradients_by_hand(temperature: float, dtype: torch.dtype) -> None:
    loss = Distillation(KD(temperature, alpha=0.9, ce_weight=0.1))
    ce = Z.softmax(1) - torch.nn.functional.one_hot(Y, 3)
    kd = temperature * ((Z / temperature).softmax(1) - (T / temperature).softmax(1))
    expected = 0.9 * float(kd.norm()) / (0.1 * float(ce.norm()))
    rel = {torch.float32: 1e-5}.get(dtype, 0.02)
    assert float(ratio(loss, Z.to(dtype))) == pytest.approx(expected, rel=rel)  # type: ignore[arg-type]


def test_float16_does_not_lose_small_gradients() -> None:
    """A student near its teacher, in a large batch: the mean's gradients lie below what float16 can hold."""
    z, y = Z.repeat(400, 1), Y.repeat(400)
    t = (z + 1e-3 * torch.randn(z.shape, generator=torch.Generator().manual_seed(2))).half()
    z = z.half().requires_grad_()
    loss = Distillation(KD(1.0, alpha=0.1))
    terms = loss(Outputs(z), Outputs(t), Batch(z, y, y))
    kd, ce = z.float().softmax(1) - t.float().softmax(1), z.float().softmax(1) - torch.nn.functional.one_hot(y, 3)
    expected = 0.1 * float((kd.norm() / ce.norm()).detach())
    assert float(kd_over_ce(loss, terms, z)) == pytest.approx(expected, rel=0.05)  # type: ignore[arg-type]


def test_there_is_none_without_two_terms_that_see_the_logits() -> None:
    assert ratio(Distillation(CE()), Z) is None
    assert ratio(Distillation(KD(alpha=0)), Z) is None
    assert ratio(Distillation(KD(ce_weight=0)), Z) is None
    z = Z.clone().requires_grad_()
    feature = torch.ones((), requires_grad=True)
    terms = {"loss": z.sum(), "ce": (z**2).sum(), "hints": 2 * feature}
    assert kd_over_ce(Distillation(KD()), terms, z) is None
