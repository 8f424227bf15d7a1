"""Calibration, Brier and fidelity against closed forms."""

import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from kd_lightning.evaluation.scores import accuracy, fidelity, score
from kd_lightning.utils.calibration import BINS, FEWEST, Reliability, brier, calibrated_scores, fit_temperature

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(500, 7, generator=GENERATOR)
LABELS = torch.multinomial((LOGITS / 2.5).softmax(1), 1, generator=GENERATOR).squeeze(1)  # too confident by T = 2.5


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [([1.0, 0.0, 0.0], 0.0), ([0.0, 1.0, 0.0], 2.0), ([1 / 3] * 3, 2 / 3), ([0.5, 0.5, 0.0], 0.5)],
)
def test_brier_is_the_squared_distance_to_the_truth(probabilities: list[float], expected: float) -> None:
    assert brier(torch.tensor([probabilities]), torch.tensor([0])) == pytest.approx(expected, abs=1e-6)


def test_a_perfectly_calibrated_model_has_no_calibration_error() -> None:
    # 80 % sure, and right on 8 of 10; 60 % sure, and right on 6 of 10
    p = torch.tensor([[0.8, 0.2]] * 10 + [[0.6, 0.4]] * 10)
    y = torch.tensor([0] * 8 + [1] * 2 + [0] * 6 + [1] * 4)
    bins = Reliability.of(p, y)
    assert bins.ece == pytest.approx(0, abs=1e-7)
    assert len(bins.count) == BINS and sum(bins.count) == 20


def test_a_sure_and_wrong_model_has_all_the_calibration_error() -> None:
    bins = Reliability.of(torch.tensor([[1.0, 0.0]] * 4), torch.tensor([1] * 4))
    assert bins.ece == pytest.approx(1) and bins.count[-1] == 4


def test_ece_is_what_torchmetrics_computes() -> None:
    expected = multiclass_calibration_error(LOGITS.softmax(1), LABELS, 7, n_bins=BINS)
    assert Reliability.of(LOGITS.softmax(1), LABELS).ece == pytest.approx(float(expected), abs=1e-5)


def test_temperature_scaling_finds_the_temperature_that_made_the_labels() -> None:
    assert fit_temperature(LOGITS, LABELS) == pytest.approx(2.5, rel=0.15)


def test_temperature_scaling_is_the_minimum_of_the_nll() -> None:
    t = fit_temperature(LOGITS, LABELS)

    def nll(temperature: float) -> float:
        return score(LOGITS.double() / temperature, LABELS, None)["nll"]

    assert nll(t) < min(nll(1.0), nll(t * 1.01), nll(t / 1.01))


def test_calibrating_lowers_nll_and_ece_and_keeps_every_answer() -> None:
    t = fit_temperature(LOGITS, LABELS)
    scores = score(LOGITS, LABELS, t)
    assert scores["calibrated"]["nll"] < scores["nll"] and scores["calibrated"]["ece"] < scores["ece"]
    assert accuracy(LOGITS / t, LABELS) == scores["accuracy"]


def test_a_model_that_never_errs_is_left_as_it_is() -> None:
    """Any sharper answer would fit better still, and be ruined by the first error on test."""
    assert fit_temperature(10 * torch.eye(4).repeat(100, 1), torch.arange(4).repeat(100)) == 1


def test_few_samples_fit_no_temperature() -> None:
    assert fit_temperature(LOGITS[: FEWEST - 1], LABELS[: FEWEST - 1]) == 1
    assert fit_temperature(LOGITS[:FEWEST], LABELS[:FEWEST]) > 1.5


def test_scores_of_known_answers() -> None:
    logits = 9 * torch.eye(3)[torch.tensor([0, 1, 1, 0])]  # says 0 1 1 0
    scores = score(logits, torch.tensor([0, 0, 1, 0]), None)
    assert scores["accuracy"] == 0.75
    assert scores["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert scores["per_class"] == [pytest.approx(2 / 3), 1.0, None]
    assert "top5" not in scores and "calibrated" not in scores


def test_fidelity_against_closed_forms() -> None:
    teacher, student = torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    told = fidelity(student, teacher)
    assert told["kl_t1"] == pytest.approx(expected) and 0 < told["kl_t4"] < expected
    same = fidelity(LOGITS, LOGITS)
    assert same == pytest.approx({"agreement": 1.0, "kl_t1": 0.0, "kl_t4": 0.0}, abs=1e-9)


def test_samples_of_unknown_class_are_ignored() -> None:
    y = LABELS.clone()
    y[::3] = -1
    known = y >= 0
    t = fit_temperature(LOGITS, y)
    assert t == fit_temperature(LOGITS[known], LABELS[known])
    assert score(LOGITS, y, t) == score(LOGITS[known], LABELS[known], t)
    assert calibrated_scores(LOGITS, y, t) == calibrated_scores(LOGITS[known], LABELS[known], t)
    assert fit_temperature(LOGITS, torch.full_like(y, -1)) == 1


def test_calibrated_scores_are_those_of_divided_logits() -> None:
    whole = score(LOGITS.double() / 2.5, LABELS, None)
    assert calibrated_scores(LOGITS, LABELS, 2.5) == pytest.approx({k: whole[k] for k in ("nll", "ece", "brier")})
