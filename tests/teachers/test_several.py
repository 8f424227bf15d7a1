"""Several teachers: how they are fused and weighted, and teachers that were trained elsewhere."""

import math
from collections.abc import Sequence

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from kd_lightning.config import ModelConfig
from kd_lightning.data import Normalize
from kd_lightning.data.images.adapter import ImageAdapter
from kd_lightning.losses import CTKD, DIST, KD, Combination, Distillation, Fusion
from kd_lightning.losses.functional import ctkd_temperature, kd
from kd_lightning.losses.functional.fusion import confidence_weights, entropy_weights
from kd_lightning.teachers.adapter import TeacherAdapter
from kd_lightning.teachers.ensemble import Ensemble
from kd_lightning.teachers.live import LiveTeacher
from kd_lightning.training.teachers import teacher_specs
from kd_lightning.types import Batch, Outputs, batch_of
from kd_lightning.utils.checks import UserError

S = 3 * torch.randn(16, 10, generator=torch.Generator().manual_seed(0))
T = 4 * torch.randn(3, 16, 10, generator=torch.Generator().manual_seed(1))
Y = torch.arange(16) % 10
BATCH = Batch(S, Y, torch.arange(16))


def several(logits: Sequence[Tensor]) -> Outputs:
    """The answers of teachers with logits `[B, C]` each, as an ensemble gives them."""
    return Outputs(logits[0], members=tuple(Outputs(one) for one in logits))


def total(fusion: str, weighting=None, teachers: int = 3, logits=T) -> float:
    loss = Distillation(KD(temperature=4.0), Fusion(fusion, weighting, teachers))
    return float(loss(Outputs(S), several(logits), BATCH)["kd"])


def test_each_fusion_is_what_its_name_says():
    probabilities = (T / 4).softmax(-1)
    for fusion, fused in {"probabilities": 4 * probabilities.mean(0).log(), "logits": T.mean(0)}.items():
        assert total(fusion) == pytest.approx(float(kd(S, fused, 4.0)), rel=1e-5)
    assert total("losses") == pytest.approx(sum(float(kd(S, t, 4.0)) for t in T) / 3, rel=1e-5)


@pytest.mark.parametrize("fusion", ["probabilities", "logits", "losses"])
def test_weights_of_one_and_zero_leave_one_teacher(fusion):
    assert total(fusion, [0, 1, 0]) == pytest.approx(float(kd(S, T[1], 4.0)), rel=1e-5)
    assert total(fusion, [0.333, 0.333, 0.333]) == pytest.approx(total(fusion), rel=1e-5), "up to rounding"


@pytest.mark.parametrize("fusion", ["probabilities", "logits", "losses", "confidence", "entropy"])
def test_equal_teachers_are_as_good_as_one(fusion):
    assert total(fusion, logits=T[:1].expand(3, -1, -1)) == pytest.approx(float(kd(S, T[0], 4.0)), rel=1e-4)


@pytest.mark.parametrize("fusion", ["probabilities", "logits", "losses", "confidence", "entropy"])
def test_methods_in_a_combination_are_fused_as_they_are_alone(fusion):
    """Each at its own temperature."""
    methods = {"soft": KD(temperature=8.0, alpha=0.5), "sharp": DIST(temperature=1.0, alpha=2.0)}
    parts = Distillation(Combination(**methods), Fusion(fusion, None, 3))(Outputs(S), several(T), BATCH)
    for (name, method), weight in zip(methods.items(), (0.5, 2.0), strict=True):
        alone = Distillation(method, Fusion(fusion, None, 3))(Outputs(S), several(T), BATCH)
        torch.testing.assert_close(parts[name], weight * alone[type(method).__name__.lower()])


def test_the_adversary_sees_what_its_temperature_does_to_the_fusion():
    """Its gradient is reversed there too."""
    loss = Distillation(CTKD(temperature=4.0, strength=0.5), Fusion(teachers=3))
    loss(Outputs(S), several(T), BATCH)["ctkd"].backward()
    theta = loss.method.theta.detach().requires_grad_()
    fused = ctkd_temperature(theta, 1.0, 20.0)
    kd(S, Fusion(teachers=3)(several(T), Y, fused), fused).backward()
    torch.testing.assert_close(loss.method.theta.grad, -0.5 * theta.grad)


def test_the_teacher_that_is_measured_is_the_one_that_teaches():
    """As far as one can fuse without the labels."""
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(12, 5)) for _ in range(2)]
    batch = Batch(torch.randn(6, 3, 2, 2), torch.zeros(6, dtype=torch.long), torch.arange(6))
    a, b = (net(batch.x) for net in nets)
    mean = (a.softmax(1) + b.softmax(1)) / 2
    for fusion, wanted in {
        Fusion("probabilities", None, 2): mean,
        Fusion("confidence", None, 2): mean,
        Fusion("losses", None, 2): mean,
        Fusion("probabilities", "learned", 2): mean,
        Fusion("probabilities", [0.75, 0.25], 2): 0.75 * a.softmax(1) + 0.25 * b.softmax(1),
        Fusion("losses", [0.75, 0.25], 2): 0.75 * a.softmax(1) + 0.25 * b.softmax(1),
        Fusion("logits", [0.75, 0.25], 2): (0.75 * a + 0.25 * b).softmax(1),
    }.items():
        told = Ensemble([LiveTeacher(net) for net in nets], fusion).evaluate(batch).logits
        torch.testing.assert_close(told.softmax(1), wanted.detach())


def test_adaptive_weights_sum_to_one_and_prefer_the_better_teacher():
    right, wrong, unsure = torch.zeros(3, 4, 10).unbind(0)
    y = torch.arange(4)
    right[y, y], wrong[y, y + 1] = 8.0, 8.0
    logits = torch.stack([right, wrong, unsure])
    weights = confidence_weights(logits, y)
    assert torch.allclose(weights.sum(0), torch.ones(4)) and (weights.argmin(0) == 1).all()
    assert (weights[0] > weights[2]).all()
    weights = entropy_weights(logits)
    assert torch.allclose(weights.sum(0), torch.ones(4)) and (weights.argmin(0) == 2).all()


def test_learned_weights_find_the_teacher_that_is_right_and_do_not_touch_the_student():
    right = torch.zeros(16, 10)
    right[torch.arange(16), Y] = 5.0
    answers = several([T[0], right])
    loss = Distillation(KD(temperature=2.0), Fusion("probabilities", "learned", 2))
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.2)
    for _ in range(50):
        optimizer.zero_grad()
        parts = loss(Outputs(S), answers, BATCH)
        parts["loss"].backward()
        optimizer.step()
    assert loss.fusion.weights(answers, Y)[1, 0] > 0.9
    student = S.clone().requires_grad_()
    parts = loss(Outputs(student), answers, BATCH)
    assert torch.autograd.grad(parts["fusion"], student, allow_unused=True, retain_graph=True)[0] is None
    assert torch.autograd.grad(parts["kd"], loss.fusion.theta, allow_unused=True)[0] is None


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("means",), "loss.fusion must be one of probabilities"),
        (("probabilities", [1, 2]), "2 weights for 3 teachers"),
        (("probabilities", [1, -2, 1]), r"teacher_weighting\[1\] must be a number >= 0"),
        (("probabilities", [0, 0, 0]), "a weight above 0"),
        (("probabilities", [1, 2, 1]), r"sums to 4, not to 1; in these proportions: \[0.25,0.5,0.25\]"),
        (("confidence", [1, 1, 1]), "finds the weights itself"),
        (("losses", "learned"), "needs loss.fusion=probabilities or logits"),
        (("probabilities", "best"), "null, learned, or a list"),
    ],
)
def test_mistakes_name_the_key(arguments, words):
    fusion, weighting = (*arguments, None)[:2]
    with pytest.raises(UserError, match=words):
        Fusion(fusion, weighting, 3)


def test_an_ensemble_gives_each_answer_and_the_fused_one():
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(12, 5)) for _ in range(2)]
    ensemble = Ensemble([LiveTeacher(net) for net in nets], Fusion(teachers=2))
    batch = Batch(torch.randn(6, 3, 2, 2), torch.zeros(6, dtype=torch.long), torch.arange(6))
    a, b = (net(batch.x) for net in nets)
    for answer in (ensemble(batch), ensemble.evaluate(batch)):
        assert [torch.equal(member.logits, own) for member, own in zip(answer.members, (a, b), strict=True)]
        assert torch.allclose(answer.logits.softmax(1), (a.softmax(1) + b.softmax(1)) / 2, atol=1e-6)
    same = (a.argmax(1) == b.argmax(1)).float().mean()
    assert torch.allclose(ensemble.agreement(), torch.tensor([[1.0, same], [same, 1.0]]))
    assert not any(p.requires_grad for net in nets for p in net.parameters())


def test_an_ensemble_whose_weights_are_learned_answers_with_them_and_is_asked_anew():
    nets = [nn.Sequential(nn.Flatten(), nn.Linear(12, 5)) for _ in range(2)]
    loss = Distillation(KD(), Fusion("logits", "learned", 2))
    ensemble = Ensemble([LiveTeacher(net) for net in nets], loss.fusion)
    batch = Batch(torch.randn(6, 3, 2, 2), torch.zeros(6, dtype=torch.long), torch.arange(6))
    before = ensemble.evaluate(batch).logits
    assert not ensemble.fixed and Ensemble(ensemble.members, Fusion(teachers=2)).fixed
    with torch.no_grad():
        loss.fusion.theta.copy_(torch.tensor([9.0, -9.0]))
    assert not torch.allclose(ensemble.evaluate(batch).logits, before)
    torch.testing.assert_close(ensemble.evaluate(batch).logits, nets[0](batch.x).detach())


def test_a_teacher_from_elsewhere_gets_its_own_pixels_size_and_classes():
    old, new = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)), Normalize((0.1, 0.2, 0.3), (1.0, 0.5, 0.25))
    pixels = torch.rand(2, 3, 8, 8)
    x, wanted = (((pixels - torch.tensor(m).view(3, 1, 1)) / torch.tensor(s).view(3, 1, 1)) for m, s in (old, new))
    assert torch.allclose(ImageAdapter(old, new)(batch_of(x, 2)), wanted, atol=1e-5)
    adapter = TeacherAdapter(ImageAdapter(old, new, 16), order=[2, 0])
    assert adapter.inputs(batch_of(x, 2)).shape == (2, 3, 16, 16)
    assert math.isclose(float(adapter.inputs(batch_of(x, 2)).mean()), float(wanted.mean()), abs_tol=0.05)
    assert adapter.logits(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[3.0, 1.0]]


def test_one_value_serves_all_teachers_and_a_list_each_its_own(tmp_path):
    files = [str(tmp_path / name) for name in ("x.pt", "y.pt")]
    model = OmegaConf.structured(
        ModelConfig(
            student="s",
            teacher=["a", "b"],
            teacher_weights=files,
            teacher_normalize="imagenet",
            teacher_classes=["cat", "dog"],
        )
    )
    a, b = teacher_specs(model)
    assert (a.suffix, b.suffix) == ("[0]", "[1]") and (a.name, b.name) == ("a", "b")
    assert [a.weights, b.weights] == files
    assert a.normalize == b.normalize == "imagenet"
    assert a.classes == b.classes == ("cat", "dog")
    model.teacher_weights = files[:1]
    with pytest.raises(UserError, match="teacher_weights has 1 values for 2 teachers"):
        teacher_specs(model)
