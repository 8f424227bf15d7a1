"""Statistics of few repeats: means, differences with their intervals, and correction for many comparisons.

Values are a metric of single runs in any unit; differences and intervals keep it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import t as student_t

TOO_FEW = 3  # below so many seeds, a t interval says next to nothing
SIGNIFICANT = 0.05
_ROUNDING = 1e-6  # relative; spread below it is that of float32


@dataclass(frozen=True)
class Difference:
    """`mean(a) - mean(b)`, its confidence interval `low` … `high` and two-sided `p`; None where they do not exist."""

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: int
    """Pairs, or values of the smaller sample."""
    paired: bool


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and standard deviation of the sample (n − 1); None of a single value."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Student's t confidence interval of the mean; None of a single value."""
    mean, std = mean_std(values)
    if std is None:
        return None
    half = _quantile(level, len(values) - 1) * std / math.sqrt(len(values))
    return mean - half, mean + half


def paired_difference(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Difference:
    """Student's paired t test; `a[i]` and `b[i]` share a seed.

    Differences without spread leave t undefined: `p` is then the exact sign-flip test's, `2^(1 − n)`.
    """
    differences = [x - y for x, y in zip(a, b, strict=True)]
    n = len(differences)
    mean, std = mean_std(differences)
    if std is None:
        return Difference(mean, None, None, None, n, True)
    if std <= _ROUNDING * _scale(a, b):
        return Difference(mean, mean, mean, _exact(mean, 2.0 ** (1 - n), a, b), n, True)
    return _t_difference(mean, std / math.sqrt(n), n - 1, n, True, level)


def welch_difference(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> Difference:
    """Welch's t test (Biometrika 34, 1947) of two samples that share no seeds; their variances may differ.

    Samples without spread leave t undefined: `p` is then the exact permutation test's, `2 / C(n_a + n_b, n_a)`.
    """
    (mean_a, std_a), (mean_b, std_b) = mean_std(a), mean_std(b)
    mean, n = mean_a - mean_b, min(len(a), len(b))
    if std_a is None or std_b is None:
        return Difference(mean, None, None, None, n, False)
    if max(std_a, std_b) <= _ROUNDING * _scale(a, b):
        return Difference(mean, mean, mean, _exact(mean, 2 / math.comb(len(a) + len(b), len(a)), a, b), n, False)
    u, v = std_a**2 / len(a), std_b**2 / len(b)
    degrees = (u + v) ** 2 / (u**2 / (len(a) - 1) + v**2 / (len(b) - 1))
    return _t_difference(mean, math.sqrt(u + v), degrees, n, False, level)


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p corrected for all of them (Holm, Scand. J. Statist. 6, 1979): the family's error rate stays bounded."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def verdict(difference: Difference, corrected_p: float | None) -> str:
    """better, worse, no difference shown, or too few seeds."""
    if difference.n < TOO_FEW or corrected_p is None:
        return "too few seeds"
    if corrected_p >= SIGNIFICANT:
        return "no difference shown"
    return "better" if difference.mean > 0 else "worse"


def _t_difference(mean: float, error: float, degrees: float, n: int, paired: bool, level: float) -> Difference:
    half = _quantile(level, degrees) * error
    p = 2 * float(student_t.sf(abs(mean) / error, degrees))
    return Difference(mean, mean - half, mean + half, p, n, paired)


def _quantile(level: float, degrees: float) -> float:
    return float(student_t.ppf((1 + level) / 2, degrees))


def _scale(a: Sequence[float], b: Sequence[float]) -> float:
    return max(abs(v) for v in (*a, *b))


def _exact(mean: float, p: float, a: Sequence[float], b: Sequence[float]) -> float:
    return 1.0 if abs(mean) <= _ROUNDING * _scale(a, b) else min(1.0, p)
