"""What every loss must do: a right and finite gradient at any size, type and shape, and 0 where it claims it."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses import functional as L

Y = torch.tensor([0, 1, 1, 0, 1, 0])


def labels(s: Tensor) -> Tensor:
    return Y[: len(s)]


def two(f: Tensor) -> list[Tensor]:
    return [f, f[:, :, ::2, ::2]]


def crd(s: Tensor, t: Tensor) -> Tensor:
    contrast = (torch.arange(len(s))[:, None] + torch.arange(len(s))) % len(s)
    v, memory = (F.normalize(x.to(torch.promote_types(x.dtype, torch.float32))) for x in (s, t))
    return L.crd(v, memory, contrast, L.crd_log_z(memory, memory, contrast, 0.07), 0.07)


class Case(NamedTuple):
    loss: Callable[[Tensor, Tensor], Tensor]
    shape: tuple[int, ...]
    zero: bool = True
    """The loss is 0 where student = teacher."""
    ge: int = 1
    """The smallest batch that means something."""


LOGITS, VECTORS, MAPS = (6, 5), (6, 7), (6, 4, 3, 4)
CASES = {
    "kd": Case(partial(L.kd, temperature=4), LOGITS),
    "reverse KL": Case(partial(L.divergence, temperature=4, kind="reverse_kl"), LOGITS),
    "Jensen-Shannon": Case(partial(L.divergence, temperature=4, kind="jensen_shannon", beta=0.3), LOGITS),
    "total variation": Case(partial(L.divergence, temperature=4, kind="total_variation"), LOGITS),
    "dkd": Case(lambda s, t: L.dkd(s, t, labels(s), 1, 8, 4), LOGITS),
    "nkd": Case(lambda s, t: L.nkd(s, t, labels(s), 1.5, 2), LOGITS, zero=False),
    "wsld": Case(lambda s, t: L.wsld(s, t, labels(s), 4), LOGITS, zero=False),
    "rld": Case(lambda s, t: L.rld(s, t, labels(s), 1, 8, 4, 1), LOGITS, zero=False),
    "rld, right teacher": Case(lambda s, t: L.rld(s, t, t.argmax(1), 1, 8, 4, 1), LOGITS),
    "hard": Case(L.hard, LOGITS, zero=False),
    "teacher_free": Case(lambda s, t: L.teacher_free(s, labels(s)), LOGITS, zero=False),
    "standardized kd": Case(lambda s, t: L.kd(L.standardize(s), L.standardize(t), 2), LOGITS),
    "dist": Case(partial(L.dist, beta=1, gamma=1, temperature=4), LOGITS, ge=2),
    "class_correlation": Case(partial(L.class_correlation, temperature=4), LOGITS),
    "batch_correlation": Case(partial(L.batch_correlation, temperature=4), LOGITS),
    "hint": Case(L.hint, MAPS),
    "attention": Case(L.attention, MAPS),
    "factor": Case(L.factor, MAPS),
    "nst": Case(L.nst, MAPS),
    "vid": Case(lambda s, t: L.vid(s, t, torch.zeros(4, dtype=s.dtype)), MAPS, zero=False),
    "fsp": Case(lambda s, t: L.fsp(two(s), two(t)), MAPS),
    "hierarchical_context": Case(lambda s, t: L.hierarchical_context(two(s), two(t)), MAPS),
    "activation_boundary": Case(L.activation_boundary, MAPS, zero=False),
    "ofd": Case(lambda s, t: L.ofd(s, t, torch.tensor([-0.5, -0.1, 0.0, -2.0])), MAPS),
    "similarity": Case(L.similarity, MAPS, ge=2),
    "correlation": Case(L.correlation, VECTORS, ge=2),
    "rkd_distance": Case(L.rkd_distance, VECTORS, ge=2),
    "rkd_angle": Case(L.rkd_angle, VECTORS, ge=3),
    "pkt": Case(L.pkt, VECTORS, ge=2),
    "crd": Case(crd, VECTORS, zero=False, ge=2),
}
every = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
of_logits = pytest.mark.parametrize("case", [c for c in CASES.values() if c.shape == LOGITS])


def pair(shape: tuple[int, ...], dtype: torch.dtype = torch.float64, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    s, t = scale * torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    return s.to(dtype).requires_grad_(), t.to(dtype)


def assert_finite(case: Case, s: Tensor, t: Tensor) -> None:
    s = s.detach().requires_grad_()
    loss = case.loss(s, t)
    loss.backward()
    assert loss.shape == () and loss.isfinite()
    assert s.grad is not None and s.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in CASES if name != "wsld"])  # whose weights are constants: see below
def test_gradient(name: str) -> None:
    case = CASES[name]
    s, t = pair(case.shape)
    assert torch.autograd.gradcheck(lambda s: case.loss(s, t), s, fast_mode=True)


@every
def test_zero_and_least_at_the_teacher(case: Case) -> None:
    s, t = pair(case.shape)
    assert case.loss(s, t) > 1e-6
    if case.zero:
        assert case.loss(t, t).item() == pytest.approx(0, abs=1e-12)


@every
def test_descends(case: Case) -> None:
    s, t = pair(case.shape)
    values = []
    for _ in range(6):
        loss = case.loss(s, t)
        (grad,) = torch.autograd.grad(loss, s)
        values.append(loss.item())
        s = (s - 0.003 * grad / grad.norm()).detach().requires_grad_()
    assert all(later < earlier for earlier, later in pairwise(values))


@every
@pytest.mark.parametrize("scale", [0.0, 200.0, 1e4])
def test_finite_at_any_size(case: Case, scale: float) -> None:
    s, t = pair(case.shape, torch.float32)
    assert_finite(case, s.sign() * scale, t.sign() * scale)
    assert_finite(case, s.sign() * scale, t)
    assert_finite(case, s, t.sign() * scale)


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_half_precision_is_computed_in_float32(case: Case, dtype: torch.dtype, scale: float) -> None:
    if case.shape != LOGITS:
        scale /= 40  # the gradient of a sum of squares leaves fp16's range, as it must
    s, t = pair(case.shape, dtype, scale)
    full = case.loss(s.float(), t.float())
    with torch.autocast("cpu", dtype=dtype):
        half, mixed = case.loss(s, t), case.loss(s.float(), t.float())
        assert_finite(case, s, t)
    assert half.dtype == mixed.dtype == torch.float32
    torch.testing.assert_close(half, full)
    torch.testing.assert_close(mixed, full)


@of_logits
@pytest.mark.parametrize("classes", [2, 1000])
@pytest.mark.parametrize("scale", [1.0, 200.0])
def test_number_of_classes(case: Case, classes: int, scale: float) -> None:
    assert_finite(case, *pair((6, classes), torch.float32, scale))


@every
def test_smallest_batch(case: Case) -> None:
    s, t = pair(case.shape)
    assert_finite(case, s[: case.ge], t[: case.ge])
    if case.ge > 1 and case is not CASES["crd"]:
        with pytest.raises(ValueError, match=rf"needs a batch of {case.ge} or more, got {case.ge - 1}"):
            case.loss(s[: case.ge - 1], t[: case.ge - 1])


SAME_SHAPE = [n for n in CASES if n not in ("teacher_free", "crd", "standardized kd")]


@pytest.mark.parametrize("name", SAME_SHAPE)
def test_other_samples_are_refused(name: str) -> None:
    """Broadcasting a teacher batch of 1 would go unnoticed."""
    s, t = pair(CASES[name].shape)
    with pytest.raises(ValueError, match="wants"):
        CASES[name].loss(s, t[:1])


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan")])
def test_temperature_is_checked(temperature: float) -> None:
    s, t = pair(LOGITS)
    for loss in (
        lambda: L.kd(s, t, temperature),
        lambda: L.dkd(s, t, Y, 1, 1, temperature),
        lambda: L.rld(s, t, Y, 1, 1, 1, temperature),
        lambda: L.rld(s, t, Y, 1, 1, temperature, 1),
        lambda: L.fuse_probabilities(t[None], temperature),
    ):
        with pytest.raises(ValueError, match="temperature must be > 0"):
            loss()


def test_kd_trains_a_learned_temperature() -> None:
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    s, t = pair(LOGITS)
    assert torch.autograd.gradcheck(lambda theta: L.kd(s.detach(), t, L.ctkd_temperature(theta, 1, 20)), theta)


def test_dkd_splits_kd() -> None:
    """KL(p_t ‖ p_s) = KL(b_t ‖ b_s) + (1 − p_t(y))·KL(p̂_t ‖ p̂_s), for a single sample (equation 6 of the paper)."""
    s, t = (x[:1] for x in pair(LOGITS))
    rest = 1 - t.softmax(1)[0, Y[0]].item()
    torch.testing.assert_close(L.dkd(s, t, Y[:1], alpha=1, beta=rest, temperature=1), L.kd(s, t, 1))


def test_standardize_uses_the_unbiased_deviation() -> None:
    z = L.standardize(pair(LOGITS)[0])
    torch.testing.assert_close(z.std(1), torch.ones(6, dtype=torch.float64), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="2 classes"):
        L.standardize(torch.ones(3, 1))


def test_wsld_weights_are_constant() -> None:
    s, t = pair(LOGITS)
    ce_s, ce_t = (F.cross_entropy(z.detach(), Y, reduction="none") for z in (s, t))
    weight = 1 - torch.exp(-ce_s / (ce_t + 1e-7))
    by_hand = 16 * (weight * F.cross_entropy(s / 4, (t / 4).softmax(1), reduction="none")).mean()
    torch.testing.assert_close(L.wsld(s, t, Y, 4), by_hand)
    torch.testing.assert_close(torch.autograd.grad(L.wsld(s, t, Y, 4), s), torch.autograd.grad(by_hand, s))


def test_rld_masks_what_the_teacher_ranks_above_the_label() -> None:
    t = torch.tensor([[3.0, 2.0, 1.0, 0.0]])
    s = torch.tensor([[0.0, 1.0, 2.0, 0.5]], requires_grad=True)
    (grad,) = torch.autograd.grad(
        L.rld(s, t, torch.tensor([1]), alpha=0, beta=1, temperature=1, alpha_temperature=1), s
    )
    assert grad[0, :2].tolist() == [0, 0] and grad[0, 2:].abs().min() > 0
    assert L.rld(s, t, torch.tensor([3]), 0, 1, 1, 1) == 0  # nothing is left below


def test_fusions_differ_and_agree_where_they_should() -> None:
    s, t = pair(LOGITS)
    teachers = torch.stack([t, t.flip(0), 2 * t])
    fused = L.fuse_probabilities(teachers, 3)
    torch.testing.assert_close((fused / 3).softmax(-1), (teachers / 3).softmax(-1).mean(0))
    values = [L.kd(s, z, 3) for z in (fused, L.fuse_logits(teachers))]
    values.append(L.mean_loss(partial(L.kd, temperature=3), s, teachers))
    assert values[0] < values[2] and len({round(v.item(), 6) for v in values}) == 3
    for fuse in (partial(L.fuse_probabilities, temperature=3), L.fuse_logits):
        torch.testing.assert_close(L.kd(s, fuse(t.expand(4, -1, -1)), 3), L.kd(s, t, 3))
    with pytest.raises(ValueError, match=r"must be \[K, B, C\], got \[6, 5\]"):
        L.fuse_logits(t)


def test_hard_and_teacher_free() -> None:
    s, t = pair(LOGITS)
    torch.testing.assert_close(L.hard(s, t), F.cross_entropy(s, t.argmax(1)))
    smooth = 0.1 * 5 / 4  # at T = 1 the hand-made teacher is label smoothing, up to its entropy
    same = torch.autograd.grad(F.cross_entropy(s, Y, label_smoothing=smooth), s)
    torch.testing.assert_close(torch.autograd.grad(L.teacher_free(s, Y, correct=0.9, temperature=1), s), same)
    with pytest.raises(ValueError, match="between 0 and 1"):
        L.teacher_free(s, Y, correct=1.0)


@pytest.mark.parametrize("loss", [L.attention, L.factor])
def test_maps_of_other_width_and_size_compare(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """The channels are averaged away, whichever side is larger."""
    f = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(loss(f, torch.cat([f, f], dim=1)), torch.tensor(0.0))
    assert loss(f, f[:, :, ::2, ::2]) > 0 and loss(f[:, :, ::2, :], f) > 0


def test_nst_takes_any_number_of_channels() -> None:
    f = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(L.nst(f, torch.cat([f, f], dim=1)), torch.tensor(0.0), atol=1e-6, rtol=0)


def test_vid_trains_its_scale_to_the_error() -> None:
    """The gradient of log_scale vanishes where σ² is the channel's mean squared error."""
    s, t = pair(MAPS)
    variance = (s - t).square().mean((0, 2, 3)).detach()
    best = (variance - 1e-5).expm1().log().requires_grad_()
    assert torch.autograd.grad(L.vid(s, t, best), best)[0].abs().max() < 1e-12
    assert torch.autograd.grad(L.vid(s, t, best + 1), best)[0].min() > 0
    assert torch.autograd.gradcheck(lambda log_scale: L.vid(s.detach(), t, log_scale), best)


def test_ofd_leaves_out_what_no_relu_passes() -> None:
    t = torch.tensor([-3.0, -3.0, 2.0, 2.0]).view(1, 1, 2, 2)
    s = torch.tensor([-2.0, 1.0, 1.0, -1.0]).view(1, 1, 2, 2)  # passed below the margin, too high, too low, too low
    assert L.ofd(s, t, -1.0) == L.ofd(s, t, torch.tensor([-1.0])) == 4 + 1 + 9


def test_ofd_margin_is_the_mean_below_zero() -> None:
    weight, bias = torch.tensor([1.0, -2.0, 0.5, 1.0]).double(), torch.tensor([0.0, 1.0, -1.0, 3.0]).double()
    x = torch.linspace(-30, 0, 300_001, dtype=torch.float64)[:, None]
    density = torch.exp(-((x - bias) ** 2) / (2 * weight**2))
    torch.testing.assert_close(L.ofd_margin(weight, bias), (x * density).sum(0) / density.sum(0), rtol=1e-3, atol=0)


def test_ofd_margin_of_extreme_channels() -> None:
    bias = torch.tensor([0.0, 5.0, -5.0, 1e3, -1e3])
    for weight in (0.0, 1e-3, 1.0):
        margin = L.ofd_margin(torch.full_like(bias, weight), bias)
        assert margin.isfinite().all() and (margin <= 0).all()
    assert margin[-1] == pytest.approx(-1e3)  # always negative: its plain mean


def test_rkd_does_not_see_scale_shift_or_rotation() -> None:
    v, t = (x.detach() for x in pair(VECTORS))
    rotation, _ = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    for loss in (L.rkd_distance, L.rkd_angle):
        torch.testing.assert_close(loss(5 * v @ rotation + 2, t), loss(v, t))
        assert_finite(Case(loss, VECTORS), v[[0, 0, 1, 1, 2, 2]], t)  # samples that coincide


@pytest.mark.parametrize("limit", [40, 3000])
def test_rkd_angles_in_groups_are_those_of_all(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Value and gradient, whatever the number of corners in a group, so that a large batch takes little memory."""
    s, t = torch.randn(2, 13, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    s, t = s.requires_grad_(), t.requires_grad_()
    whole = L.rkd_angle(s, t)
    gradients = torch.autograd.grad(whole, (s, t))
    monkeypatch.setattr("kd_lightning.losses.functional.relations.MAX_ANGLES", limit)
    parts = L.rkd_angle(s, t)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts, (s, t), retain_graph=True), gradients)
    torch.testing.assert_close(torch.autograd.grad(parts, (s, t)), gradients)  # as `kd_over_ce` asks twice


def test_rkd_angles_in_groups_stay_out_of_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    s, t = (x.float() for x in pair(VECTORS))
    expected = L.rkd_angle(s, t)
    monkeypatch.setattr("kd_lightning.losses.functional.relations.MAX_ANGLES", 36)
    s = s.detach().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = L.rkd_angle(s, t)
    loss.backward()
    assert s.grad is not None and s.grad.dtype == torch.float32
    torch.testing.assert_close(loss, expected)


def test_crd_prefers_the_positive_and_updates_without_touching() -> None:
    memory = torch.eye(4, dtype=torch.float64)
    contrast = torch.tensor([[0, 1, 2], [3, 1, 2]])
    log_z = L.crd_log_z(memory[[0, 3]], memory, contrast, 0.5)
    right, wrong = (L.crd(memory[rows], memory, contrast, log_z, 0.5) for rows in ([0, 3], [1, 2]))
    assert right < wrong
    v = F.normalize(torch.ones(2, 4, dtype=torch.float64)).requires_grad_()
    rows = L.crd_update(memory, torch.tensor([0, 3]), v, momentum=0.5)
    assert torch.equal(memory, torch.eye(4, dtype=torch.float64)) and not rows.requires_grad
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(rows[0], F.normalize(memory[0] + v[0].detach(), dim=0))


def test_fsp_names_what_does_not_fit() -> None:
    f = torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match="2 or more maps"):
        L.fsp([f], [f])
    with pytest.raises(ValueError, match=r"one shape, got \[2, 3, 3\] and \[2, 3, 2\]"):
        L.fsp([f, f], [f, f[:, :2]])
    with pytest.raises(ValueError, match="as many"):
        L.hierarchical_context([f], [f, f])
