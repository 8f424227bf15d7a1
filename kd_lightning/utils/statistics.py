"""Statistics of few repeats: means, intervals, and the comparison of two settings.

Scores are any metric of single runs of which more is better; gains and intervals keep its unit.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

TOO_FEW = 3  # seeds; fewer get no verdict
SIGNIFICANT = 0.05
_CONFIRM_FROM = 6  # pairs; the exact sign-flip test cannot reject at 5 % with fewer
ROUNDING = 1e-6  # relative; spread below it is that of float32

Scores = Mapping[str, Mapping[Hashable, float]]
"""Setting → seed → score."""


@dataclass(frozen=True)
class Gain:
    """Mean score of a setting minus the baseline's.

    The interval and `p` are corrected for all settings that were tested together; None where too little was run.
    """

    mean: float
    low: float | None
    high: float | None
    p: float | None
    n: int
    """Seeds shared with the baseline, or of the smaller sample where none are shared."""
    test: str
    """blocks, paired t, Welch, or exact (no spread)."""
    level: float = SIGNIFICANT
    """Level of this single comparison that keeps all of them at 5 %."""
    df: float = 0.0
    sign_flip_p: float | None = None
    """Exact sign-flip permutation test of this setting alone, from six pairs on."""

    @property
    def apart(self) -> bool:
        return self.test != "blocks"


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the sample's standard deviation (n − 1); None for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Return Student's t confidence interval of the mean; None for a single value."""
    mean, std = mean_std(values)
    if std is None:
        return None
    half = float(stats.t.isf((1 - level) / 2, len(values) - 1)) * std / math.sqrt(len(values))
    return mean - half, mean + half


def difference(a: Mapping[Hashable, float], b: Mapping[Hashable, float], tests: int = 1) -> Gain:
    """Compare two settings alone: Student's paired t test on shared seeds, else Welch's; Bonferroni over `tests`."""
    x, y, paired = samples(a, b)
    mean, n = mean_difference(a, b), min(len(x), len(y))
    if n < 2:
        return Gain(mean, None, None, None, n, "paired t" if paired else "Welch")
    level = SIGNIFICANT / tests
    if has_no_spread(x - y, [*x, *y]) if paired else all(has_no_spread(v, [*x, *y]) for v in (x, y)):
        count = 2.0 ** (1 - n) if paired else 2 / math.comb(len(x) + len(y), len(x))
        p = 1.0 if abs(mean) <= ROUNDING * max(map(abs, [*x, *y])) else min(1.0, count * tests)
        return Gain(mean, None, None, p, n, "exact", level)
    result = stats.ttest_rel(x, y) if paired else stats.ttest_ind(x, y, equal_var=False)
    low, high = result.confidence_interval(1 - level)
    p = min(1.0, tests * float(result.pvalue))
    flip = sign_flip(x - y) if paired else None
    return Gain(mean, float(low), float(high), p, n, "paired t" if paired else "Welch", level, float(result.df), flip)


def verdict(gain: Gain) -> str:
    """Return better, worse, no difference shown, or too few seeds."""
    if gain.n < TOO_FEW or gain.p is None:
        return "too few seeds"
    if gain.p >= SIGNIFICANT:
        return "no difference shown"
    return "better" if gain.mean > 0 else "worse"


def sign_flip(differences: np.ndarray) -> float | None:
    """Return the exact two-sided p over all 2^n signs; None of too few pairs to reject at 5 %, or too many to count."""
    n = len(differences)
    if not _CONFIRM_FROM <= n <= 14:
        return None
    signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    sums = np.abs(signs @ differences)
    return float(np.mean(sums >= abs(differences.sum()) * (1 - 1e-9)))


def samples(a: Mapping[Hashable, float], b: Mapping[Hashable, float]) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the scores of shared seeds, and True; or all scores, and False."""
    if pairs_with(a, b):
        shared = [seed for seed in a if seed in b]
        return np.array([a[s] for s in shared]), np.array([b[s] for s in shared]), True
    return np.array(list(a.values())), np.array(list(b.values())), False


def pairs_with(a: Mapping[Hashable, float], b: Mapping[Hashable, float]) -> bool:
    shared = len(a.keys() & b.keys())
    return shared > 1 or shared == len(a) == len(b)


def mean_difference(a: Mapping[Hashable, float], b: Mapping[Hashable, float]) -> float:
    x, y, _ = samples(a, b)
    return float(x.mean() - y.mean())


def has_no_spread(values: np.ndarray, scale: Sequence[float] | np.ndarray) -> bool:
    return is_rounding(float(values.std(ddof=1)), scale)


def is_rounding(spread: float, scale: Sequence[float] | np.ndarray) -> bool:
    return spread <= ROUNDING * float(np.abs(scale).max())
