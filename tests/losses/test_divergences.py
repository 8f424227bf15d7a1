"""The divergences of `loss=kd`, against values worked out by hand in float64."""

import math

import pytest
import torch
from torch import Tensor

from kd_lightning.losses import KD
from kd_lightning.losses import functional as L
from kd_lightning.losses.functional import DIVERGENCES
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import UserError

# Two samples of two classes, chosen for probabilities that are simple at T = 2: softmax(z/2) of z = [2·ln a, 2·ln b] is
# [a, b]/(a + b).
#   sample 1: teacher p = [3/4, 1/4], student q = [1/2, 1/2]
#   sample 2: teacher p = [1/2, 1/2], student q = [1/4, 3/4]
#
# KL(p ‖ q), sample 1: 3/4·ln(3/2) + 1/4·ln(1/2) = 3/4·ln 3 − ln 2
#            sample 2: 1/2·ln 2 + 1/2·ln(2/3)     = ln 2 − 1/2·ln 3
#   mean 1/8·ln 3, times T² = 4: 1/2·ln 3.
# KL(q ‖ p), sample 1: 1/2·ln(2/3) + 1/2·ln 2     = ln 2 − 1/2·ln 3
#            sample 2: 1/4·ln(1/2) + 3/4·ln(3/2)  = 3/4·ln 3 − ln 2
#   the two change places, so the mean is the same; one sample alone tells them apart.
# TV, both samples: 1/2·(1/4 + 1/4) = 1/4; mean 1/4, times T = 2: 1/2.
# JSD(beta = 1/2), sample 1: m = [5/8, 3/8]
#     KL(p ‖ m) = 3/4·ln(6/5) + 1/4·ln(2/3), KL(q ‖ m) = 1/2·ln(4/5) + 1/2·ln(4/3); half of each.
#   sample 2 is sample 1 with p and q, and the two classes, exchanged: the same value. Times 4.
# JSD(beta = 1/4), sample 1: m = 1/4·p + 3/4·q = [9/16, 7/16]
#     1/4·[3/4·ln(4/3) + 1/4·ln(4/7)] + 3/4·[1/2·ln(8/9) + 1/2·ln(8/7)].
LN = math.log
JSD_HALF = 0.5 * (0.75 * LN(6 / 5) + 0.25 * LN(2 / 3)) + 0.5 * (0.5 * LN(4 / 5) + 0.5 * LN(4 / 3))
JSD_QUARTER = 0.25 * (0.75 * LN(4 / 3) + 0.25 * LN(4 / 7)) + 0.75 * (0.5 * LN(8 / 9) + 0.5 * LN(8 / 7))


def logits(*probabilities: tuple[float, float]) -> Tensor:
    return 2 * torch.tensor(probabilities, dtype=torch.float64).log()


T = logits((0.75, 0.25), (0.5, 0.5))
S = logits((0.5, 0.5), (0.25, 0.75))


@pytest.mark.parametrize(
    ("kind", "beta", "samples", "value"),
    [
        ("forward_kl", 0.5, 2, LN(3) / 2),
        ("forward_kl", 0.5, 1, 3 * LN(3) - 4 * LN(2)),
        ("reverse_kl", 0.5, 2, LN(3) / 2),
        ("reverse_kl", 0.5, 1, 4 * LN(2) - 2 * LN(3)),
        ("jensen_shannon", 0.5, 2, 4 * JSD_HALF),
        ("jensen_shannon", 0.25, 1, 4 * JSD_QUARTER),
        ("jensen_shannon", 0.0, 1, 3 * LN(3) - 4 * LN(2)),
        ("jensen_shannon", 1.0, 1, 4 * LN(2) - 2 * LN(3)),
        ("total_variation", 0.5, 2, 0.5),
    ],
)
def test_values(kind: str, beta: float, samples: int, value: float) -> None:
    s, t = S[:samples], T[:samples]
    assert L.divergence(s, t, 2.0, kind, beta).item() == pytest.approx(value, rel=1e-13)
    batch = Batch(s, torch.zeros(samples, dtype=torch.long), torch.arange(samples))
    method = KD(2.0, divergence=kind, beta=beta)
    assert method(Outputs(s), Outputs(t), batch).item() == pytest.approx(value, rel=1e-13)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_the_gradients_scale_does_not_depend_on_the_temperature(kind: str) -> None:
    """That is what the power of T is for."""
    s = (0.1 * torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).requires_grad_()
    t = s.detach().flip(0) + torch.linspace(-0.1, 0.1, 5)
    norms = [torch.autograd.grad(L.divergence(s, t, temp, kind), s)[0].norm().item() for temp in (1.0, 4.0, 40.0)]
    assert norms == pytest.approx([norms[-1]] * 3, rel=0.1)


def test_jensen_shannon_over_beta_goes_to_the_two_kls() -> None:
    """Why 0 and 1 stand for them (GKD, arXiv 2306.13649)."""
    near = 1e-6
    forward, backward = L.kd(S, T, 2.0), L.divergence(S, T, 2.0, "reverse_kl")
    torch.testing.assert_close(L.divergence(S, T, 2.0, "jensen_shannon", near) / near, forward, rtol=1e-4, atol=0)
    torch.testing.assert_close(L.divergence(S, T, 2.0, "jensen_shannon", 1 - near) / near, backward, rtol=1e-4, atol=0)


def test_the_forward_kl_is_that_of_kd_bit_for_bit() -> None:
    s, t = torch.randn(2, 32, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(L.divergence(s, t, 3.7), L.kd(s, t, 3.7))


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("adapt", ["weight", "temperature"])
def test_each_goes_with_the_teachers_confidence(kind: str, adapt: str) -> None:
    """By hand, sample by sample."""
    s, t = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.tensor([0, 1, 1, 0, 1, 4])
    sure = t.softmax(1)[torch.arange(6), y]
    own = [4.0 if adapt == "weight" else float(1 + 3 * c) for c in sure]
    each = torch.stack([L.divergence(s[i : i + 1], t[i : i + 1], own[i], kind, 0.3) for i in range(6)])
    method = KD(4.0, divergence=kind, beta=0.3, adapt=adapt, by="correctness")
    got = method(Outputs(s), Outputs(t), Batch(s, y, torch.arange(6)))
    torch.testing.assert_close(got, (sure * each if adapt == "weight" else each).mean())


def test_wrong_values_are_told() -> None:
    with pytest.raises(UserError, match=r"loss\.divergence must be one of .*did you mean 'reverse_kl'"):
        KD(divergence="revers_kl")
    with pytest.raises(UserError, match=r"loss\.beta must be a number >= 0 and <= 1, got 1.5"):
        KD(beta=1.5)
