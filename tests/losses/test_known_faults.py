"""One test for each fault found in public code; each fails if the fault is brought in here.

Batch relations of the local shard alone are in test_gather.py.
"""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses import DKD, DML, KD, MLLD, Attention, Combination, Distillation, Fusion, Method
from kd_lightning.losses import functional as L
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import UserError
from tests.losses.learner import Learner, few
from tests.losses.test_golden import GOLDEN, Y, closed_form

V = closed_form(torch.float64)
S, T = V["zs"], V["zt"]
BATCH = Batch(S, Y, torch.arange(8))


def value(method: Method, s: Tensor = S, t: Tensor = T) -> dict[str, Tensor]:
    return Distillation(method)(Outputs(s), Outputs(t), BATCH)


def together(*members: Tensor) -> Outputs:
    """What several teachers answer."""
    return Outputs(L.fuse_probabilities(torch.stack(members), 1.0), members=tuple(map(Outputs, members)))


def kl_by_hand(s: Tensor, t: Tensor, temperature: float) -> Tensor:
    p, q = (t / temperature).softmax(1), (s / temperature).softmax(1)
    return (p * (p / q).log()).sum(1).mean()


@pytest.mark.parametrize("alpha", [1e-9, 0.5, 1.0, {"schedule": "linear", "start": 0, "end": 1, "epochs": 5}])
def test_t_squared_is_lost_at_some_alpha(alpha: Any) -> None:
    terms = value(KD(temperature=4.0, alpha=alpha))
    torch.testing.assert_close(terms["kd"], 16 * kl_by_hand(S, T, 4))
    torch.testing.assert_close(
        terms["loss"], terms["ce"] + (alpha if isinstance(alpha, float) else 0.0) * 16 * kl_by_hand(S, T, 4)
    )


def test_alpha_none_means_something_else() -> None:
    with pytest.raises(UserError, match=r"loss\.alpha must be a number >= 0, got None"):
        KD(temperature=4.0, alpha=None)


def test_t_squared_is_missing_from_the_gradient() -> None:
    """Without it the gradient would shrink 1600-fold."""
    s = (0.1 * S).requires_grad_()
    norms = [torch.autograd.grad(L.kd(s, 0.1 * T, t), s)[0].norm().item() for t in (1, 4, 40)]
    assert norms == pytest.approx([norms[-1]] * 3, rel=0.1)


def test_an_mse_of_logits_or_probabilities_is_called_kd() -> None:
    torch.testing.assert_close(value(KD(temperature=4.0))["kd"], 16 * kl_by_hand(S, T, 4))
    torch.testing.assert_close(L.kd(S + 7, T - 3, 4), L.kd(S, T, 4))  # an MSE of logits sees a shift


def test_alpha_weighs_the_cross_entropy_too() -> None:
    few, many = (value(KD(alpha=alpha, ce_weight=0.3)) for alpha in (0.5, 0.9))
    torch.testing.assert_close(many["loss"] - few["loss"], 0.4 * few["kd"])
    torch.testing.assert_close(few["loss"], 0.3 * F.cross_entropy(S, Y) + 0.5 * few["kd"])


@pytest.mark.parametrize("beta", [0.0, 8.0])
def test_dkd_underflows(beta: float) -> None:
    """`log(softmax)` of these logits is −inf for the target class."""
    s = torch.tensor([[120.0, 0, 0, 0]], requires_grad=True)
    batch = Batch(s, torch.tensor([1]), torch.zeros(1, dtype=torch.long))
    loss = DKD(temperature=1.0, beta=beta)(Outputs(s), Outputs(torch.tensor([[1.0, 2, 0, 0]])), batch)
    loss.backward()
    assert 10 < loss.item() < 1000
    assert s.grad is not None and s.grad.isfinite().all() and s.grad[0, 1] < 0  # pushes the target up


def test_vid_leaves_its_variances_out_of_training_and_checkpoint() -> None:
    run = Learner("vid")
    scales = [name for name, _ in run.loss.named_parameters() if "log_scales" in name]
    assert len(scales) == 3 and set(scales) <= set(run.loss.state_dict())
    trained = {id(p) for group in run.optimizer.param_groups for p in group["params"]}
    before = run.own()
    run.step()
    for name in scales:
        p = run.loss.get_parameter(name)
        assert id(p) in trained and (p != before[name]).all()
        assert len(p) == 64 or len(p) in (16, 32)  # one for each channel of the teacher


def test_ofd_changes_the_teachers_statistics() -> None:
    run = Learner("ofd")
    before = {k: v.clone() for k, v in run.teacher_model.state_dict().items()}
    run.all.train()
    run.step()
    assert not any(m.training for m in run.teacher_model.modules())
    assert all(torch.equal(v, before[k]) for k, v in run.teacher_model.state_dict().items())
    assert any("num_batches_tracked" in k for k in before)


def test_crd_forgets_what_is_not_finite() -> None:
    """`trainer.skip_nonfinite` leaves it out; what it wrote made all later losses NaN."""
    run = Learner("crd")
    batch = few(16)
    student, teacher = run.outputs(batch)
    bad = student._replace(features={name: f * float("nan") for name, f in student.features.items()})
    before = {name: v.clone() for name, v in run.loss.method.state.items()}  # type: ignore[union-attr]
    assert not run.loss(bad, teacher, batch)["loss"].isfinite()
    after = run.loss.method.state
    assert torch.equal(after["memory_s"], before["memory_s"])  # type: ignore[index]
    losses = [run.loss(student, teacher, batch)["loss"] for _ in range(3)]
    assert all(loss.isfinite() for loss in losses)
    assert run.loss.method.state["log_z"].isfinite().all()  # type: ignore[index]


@pytest.mark.parametrize("preset", ["sp", "rkd", "pkt", "cc", "ft", "crd"])
def test_a_loss_of_one_layer_refuses_many(preset: str) -> None:
    layers = ("loss.student_layers=before_relu", "loss.teacher_layers=before_relu")
    with pytest.raises(UserError, match=r"loss\.student_layers must be one layer for this loss: .* got 'before_relu'"):
        Learner(preset, *layers)


def test_a_combination_of_a_method_with_students_of_its_own_is_refused() -> None:
    with pytest.raises(UserError, match=r"loss\.dml: DML trains several students and cannot be combined"):
        Combination(kd=KD(), dml=DML())


def test_simkd_refuses_a_student_with_layers_behind_the_last_map() -> None:
    with pytest.raises(UserError, match=r"classifier\.0\.weight lies behind that and would be deployed for nothing"):
        Learner("simkd", student="mobilenet_v3_small")


def test_a_copy_of_a_simkd_student_reads_the_layers_of_another() -> None:
    student = Learner("simkd").student.eval()
    again, x = copy.deepcopy(student), few(4).x
    assert torch.equal(again(x), student(x))
    with torch.no_grad():
        next(again.parameters()).add_(1.0)
    assert not torch.equal(again(x), student(x))


def test_an_attention_power_below_one_is_refused() -> None:
    with pytest.raises(UserError, match=r"loss\.p must be a number >= 1, got 0\.5"):
        Attention(p=0.5)


def test_mlld_leaves_out_terms_or_masks_a_mean() -> None:
    """All three levels at all five temperatures, each as it is: 0.9 of their sum."""
    wanted = torch.zeros((), dtype=torch.float64)
    for t in (2, 3, 4, 5, 6):
        p, q = (T / t).softmax(1), (S / t).softmax(1)
        wanted += t**2 * kl_by_hand(S, T, t)
        wanted += (p.T @ p - q.T @ q).square().sum() / 10 + (p @ p.T - q @ q.T).square().sum() / 8
    torch.testing.assert_close(value(MLLD(alpha=0.9, ce_weight=0.0))["loss"], 0.9 * wanted)


def test_ctkd_of_standardized_logits_falls_to_the_least_temperatures() -> None:
    """So it is refused; the reason: the adversary looks for the T of the largest loss, which then is a small one."""
    y, noise = torch.arange(64) % 100, torch.randn(2, 64, 100, generator=torch.Generator().manual_seed(0))
    t = noise[0] + 10 * F.one_hot(y, 100)
    s = t + noise[1]
    start, least = 15.62, 1.5
    assert L.kd(s, t, start) > 2 * L.kd(s, t, least)
    s, t = L.standardize(s), L.standardize(t)
    assert L.kd(s, t, least) > 1.5 * L.kd(s, t, start)
    with pytest.raises(UserError, match=r"loss\.standardize=true does not go with CTKD"):
        Learner("ctkd", "loss.standardize=true")


def test_attention_forgets_the_mean_over_channels() -> None:
    """Which channel is active must not count, only where; by hand for the module, and for other widths."""
    f = torch.rand(8, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(L.attention(f, f[:, [2, 0, 1]]), torch.zeros((), dtype=torch.float64))
    torch.testing.assert_close(L.attention(f, f.repeat(1, 2, 1, 1)), torch.zeros((), dtype=torch.float64))
    method = Attention()
    method.layers.student = method.layers.teacher = ("a",)
    q_s, q_t = (F.normalize(v.square().mean(1).flatten(1)) for v in (V["fs"], V["ft"]))
    got = method(Outputs(S, {"a": V["fs"]}), Outputs(T, {"a": V["ft"]}), BATCH)
    torch.testing.assert_close(got, (q_s - q_t).square().mean())


def test_standardization_divides_by_the_biased_deviation() -> None:
    torch.testing.assert_close(L.standardize(S).std(1), torch.ones(8, dtype=torch.float64), atol=1e-5, rtol=0)
    s, t = ((z - z.mean(1, keepdim=True)) / (1e-7 + z.std(1, keepdim=True, correction=1)) for z in (S, T))
    torch.testing.assert_close(value(KD(temperature=2.0, standardize=True))["kd"], 4 * kl_by_hand(s, t, 2))


@pytest.mark.parametrize(
    ("fusion", "name"),
    [
        ("logits", "fusion, mean of logits: kd(zs, (zt + zt2)/2, temperature=4)"),
        ("probabilities", "fusion, mean of softened probabilities, temperature=4"),
        ("losses", "fusion, mean of the two losses, temperature=4"),
    ],
)
def test_fusions_are_confused(fusion: str, name: str) -> None:
    loss = Distillation(KD(temperature=4.0), Fusion(fusion, None, 2))
    got = loss(Outputs(S), together(T, V["zt2"]), BATCH)["kd"]
    assert got.item() == pytest.approx(GOLDEN[name], rel=1e-6)


def test_a_third_dimension_of_logits_is_taken_for_several_teachers() -> None:
    """`[B, L, C]` are the logits of L tokens: the mean over them all."""
    tokens, teacher = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(L.kd(tokens, teacher, 2), L.kd(tokens.flatten(0, 1), teacher.flatten(0, 1), 2))
    with pytest.raises(ValueError, match="one shape"):
        L.kd(S, torch.stack([T, V["zt2"]]), 2)


def test_probabilities_are_fused_at_another_temperature_than_the_losses() -> None:
    """Fused at T = 1, then softened, they would be another mean; the schedule's T of the moment counts."""
    both = torch.stack([T, V["zt2"]])
    schedule = {"schedule": "linear", "start": 2, "end": 6, "epochs": 2}
    loss = Distillation(KD(temperature=schedule), Fusion("probabilities", None, 2))
    for epoch, t in ((0.0, 2), (1.0, 4), (5.0, 6)):
        loss.method.set_epoch(epoch)
        fused = (both / t).softmax(2).mean(0)
        q = (S / t).softmax(1)
        by_hand = t**2 * (fused * (fused / q).log()).sum(1).mean()
        torch.testing.assert_close(loss(Outputs(S), together(*both), BATCH)["kd"], by_hand)
