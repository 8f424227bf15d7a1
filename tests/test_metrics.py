"""The scores against their definitions, whatever the batches."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kd_lightning.metrics import Scores


def logits(n: int = 37, classes: int = 10, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(n, classes, generator=generator) for _ in range(2))
    return student, teacher, torch.randint(classes, (n,), generator=generator)


def by_hand(student: Tensor, teacher: Tensor, y: Tensor) -> dict[str, float]:
    p, q = student.double().softmax(1), teacher.double().softmax(1)
    rows = torch.arange(len(y))
    confidence, predicted = p.max(1)
    right = (predicted == y).double()
    ece = 0.0
    for i in range(15):
        inside = (confidence > i / 15) & (confidence <= (i + 1) / 15)
        if inside.any():
            ece += float(inside.double().mean() * (right[inside].mean() - confidence[inside].mean()).abs())
    return {
        "accuracy": float(right.mean()),
        "top5": float((student.topk(5).indices == y[:, None]).any(1).double().mean()),
        "nll": float(-p[rows, y].log().mean()),
        "ece": ece,
        "entropy": float(-(p * p.log()).sum(1).mean()),
        "teacher_entropy": float(-(q * q.log()).sum(1).mean()),
        "agreement": float((predicted == q.argmax(1)).double().mean()),
        "kl": float((q * (q.log() - p.log())).sum(1).mean()),
        "teacher_accuracy": float((q.argmax(1) == y).double().mean()),
        "teacher_nll": float(-q[rows, y].log().mean()),
    }


@pytest.mark.parametrize("batch", [1, 5, 36, 37])
def test_by_hand_for_any_batches(batch: int) -> None:
    student, teacher, y = logits()
    scores = Scores(10)
    for s, t, labels in zip(student.split(batch), teacher.split(batch), y.split(batch), strict=True):
        scores.update(s, t, labels)
    computed = scores.compute()
    assert {k: computed[k] for k in by_hand(student, teacher, y)} == pytest.approx(by_hand(student, teacher, y), 1e-5)


def test_starts_afresh() -> None:
    scores = Scores(10)
    for seed in (0, 1):
        student, teacher, y = logits(seed=seed)
        scores.update(student, teacher, y)
        assert scores.compute()["nll"] == pytest.approx(float(F.cross_entropy(student, y)))


def test_without_a_teacher() -> None:
    student, teacher, y = logits()
    scores = Scores(10)
    scores.update(student, teacher, y)
    assert "agreement" in scores.compute()
    scores.update(student, None, y)
    assert set(scores.compute()) == {"accuracy", "top5", "nll", "entropy", "ece"}


def test_top5_needs_more_than_five_classes() -> None:
    scores = Scores(5)
    student, _, y = logits(classes=5)
    scores.update(student, None, y)
    assert "top5" not in scores.compute()


def test_confusion() -> None:
    scores = Scores(3)
    scores.update(F.one_hot(torch.tensor([0, 1, 1, 2]), 3).float(), None, torch.tensor([0, 1, 2, 2]))
    scores.compute()
    assert scores.detail["student"]["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_a_confidence_of_exactly_1_is_in_the_last_bin() -> None:
    """In float32 a large margin gives 1.0; a bin of its own would split those who are nearly as sure."""
    logits = torch.tensor([[200.0, 0.0], [200.0, 0.0], [4.0, 0.0], [4.0, 0.0]])
    scores = Scores(2)
    scores.update(logits, None, torch.tensor([1, 0, 0, 0]))
    sure = (2 * 1.0 + 2 * float(torch.tensor(4.0).sigmoid())) / 4
    assert scores.compute()["ece"] == pytest.approx(abs(0.75 - sure), abs=1e-6)
    assert scores.detail["student"]["reliability"]["count"] == [0] * 14 + [4]


def test_entropy_of_a_sure_and_of_a_clueless_answer() -> None:
    scores = Scores(2)
    scores.update(torch.tensor([[500.0, 0.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([0]))
    values = scores.compute()
    assert values["entropy"] == 0 and values["teacher_entropy"] == pytest.approx(0.693147, abs=1e-6)


def test_a_student_that_copies_its_teacher() -> None:
    student, _, y = logits()
    scores = Scores(10)
    scores.update(student, student.clone(), y)
    computed = scores.compute()
    assert computed["agreement"] == 1 and computed["kl"] == pytest.approx(0, abs=1e-6)
    assert computed["teacher_ece"] == computed["ece"]


def test_half_precision_logits_are_scored_in_float32() -> None:
    student, teacher, y = (t.bfloat16() if t.is_floating_point() else t for t in logits())
    scores = Scores(10)
    scores.update(student, teacher, y)
    assert scores.compute()["kl"] == pytest.approx(by_hand(student.float(), teacher.float(), y)["kl"], 1e-5)


def test_samples_of_unknown_class_count_in_fidelity_only() -> None:
    student, teacher, y = logits()
    unknown = y.clone()
    unknown[::4] = -1
    known = unknown >= 0
    scores = Scores(10)
    scores.update(student, teacher, unknown)
    computed, detail = scores.compute(), scores.detail
    scores.update(student[known], teacher[known], y[known])
    expected = scores.compute()
    fidelity = ("agreement", "kl")
    assert {k: v for k, v in computed.items() if k not in fidelity} == {
        k: v for k, v in expected.items() if k not in fidelity
    }
    assert detail == scores.detail
    whole = by_hand(student, teacher, y)
    assert {k: computed[k] for k in fidelity} == pytest.approx({k: whole[k] for k in fidelity}, 1e-5)


def test_a_student_that_diverged_has_no_score_that_looks_good() -> None:
    student, teacher, y = logits()
    student[3] = float("nan")
    scores = Scores(10)
    scores.update(student, teacher, y)
    values = scores.compute()
    assert all(math.isnan(values[name]) for name in ("nll", "entropy", "kl"))
    assert not math.isnan(values["teacher_nll"])


def test_sums_stay_exact_in_a_module_that_is_cast() -> None:
    """As `trainer.precision=bf16-true` does; in bf16, 256 + 1 is 256."""
    student, _, y = logits(1000)
    plain, cast = Scores(10), Scores(10).to(torch.bfloat16)
    for scores in (plain, cast):
        for some in torch.arange(1000).split(50):
            scores.update(student[some], None, y[some])
    assert cast.compute() == plain.compute()
