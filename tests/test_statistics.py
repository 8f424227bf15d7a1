"""The statistics agree with scipy and with closed forms, and do not break on one value or on equal ones."""

import math

import numpy as np
import pytest
from scipy import stats

from kd_lightning.utils.statistics import (
    Difference,
    holm,
    interval,
    mean_std,
    paired_difference,
    verdict,
    welch_difference,
)

A, B = [93.1, 92.4, 93.9, 93.3, 92.8], [92.2, 92.5, 93.0, 92.1, 92.4]


def test_mean_and_std() -> None:
    assert mean_std([1.0, 2.0, 4.0]) == (pytest.approx(7 / 3), pytest.approx(math.sqrt(7 / 3)))
    assert mean_std([5.0]) == (5.0, None)


def test_interval_is_scipys() -> None:
    expected = stats.t.interval(0.95, len(A) - 1, np.mean(A), stats.sem(A))
    assert interval(A) == pytest.approx(expected)
    assert interval([1.0]) is None


def test_paired_is_scipys() -> None:
    expected = stats.ttest_rel(A, B)
    got = paired_difference(A, B)
    assert (got.p, got.mean) == (pytest.approx(expected.pvalue), pytest.approx(np.mean(A) - np.mean(B)))
    assert (got.low, got.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert got.paired and got.n == 5


@pytest.mark.parametrize("b", [B, B[:3], B[:2]])
def test_welch_is_scipys(b: list[float]) -> None:
    expected = stats.ttest_ind(A, b, equal_var=False)
    got = welch_difference(A, b)
    assert got.p == pytest.approx(expected.pvalue) and got.n == len(b) and not got.paired
    assert (got.low, got.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_sign_turns_with_the_order() -> None:
    there, back = paired_difference(A, B), paired_difference(B, A)
    assert there.mean == -back.mean and there.p == back.p and there.low == pytest.approx(-back.high)


@pytest.mark.parametrize("difference", [paired_difference, welch_difference])
def test_one_seed_has_a_gain_and_no_more(difference: type) -> None:
    got = difference([3.0], [1.0])
    assert (got.mean, got.low, got.high, got.p, got.n) == (2.0, None, None, None, 1)
    assert verdict(got, None) == "too few seeds"


def test_without_spread_the_test_is_exact() -> None:
    assert paired_difference([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]).p == 2 / 2**3
    assert paired_difference(A, A) == Difference(0.0, 0.0, 0.0, 1.0, 5, True)
    assert welch_difference([2.0] * 3, [1.0] * 3).p == 2 / 20
    assert welch_difference([1.0] * 3, [1.0] * 3).p == 1.0
    float32 = [float(np.float32(v)) for v in (0.9, 0.8, 0.7)]
    assert paired_difference(float32, [v - 0.1 for v in (0.9, 0.8, 0.7)]).p == 0.25, "rounding is no spread"


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02] and holm([]) == []


def test_holm_never_exceeds_bonferroni_and_keeps_the_order() -> None:
    p = [0.001, 0.2, 0.03, 0.03, 0.8]
    corrected = holm(p)
    assert all(raw <= c <= min(1, len(p) * raw) for raw, c in zip(p, corrected, strict=True))
    assert [c for _, c in sorted(zip(p, corrected, strict=True))] == sorted(corrected)


@pytest.mark.parametrize(
    ("mean", "n", "p", "words"),
    [
        (1.0, 3, 0.01, "better"),
        (-1.0, 3, 0.01, "worse"),
        (1.0, 3, 0.05, "no difference shown"),
        (1.0, 2, 0.001, "too few seeds"),
    ],
)
def test_verdict(mean: float, n: int, p: float, words: str) -> None:
    assert verdict(Difference(mean, 0.0, 0.0, p, n, True), p) == words


def test_error_rate_under_the_null() -> None:
    """Of 2,000 studies without any effect, 5 % ± 1.5 find one."""
    rng = np.random.default_rng(0)
    found = [paired_difference(*rng.normal(size=(2, 5))).p < 0.05 for _ in range(2000)]
    assert abs(np.mean(found) - 0.05) < 0.015
