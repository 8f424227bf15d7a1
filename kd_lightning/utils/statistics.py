"""Statistics of few repeats: means, gains over a baseline with simultaneous intervals, and power.

Scores are any metric of single runs of which more is better; gains and intervals keep its unit.

`gains_over` fits score = setting + seed + noise to all settings with a usual spread, and compares each with the
baseline (Dunnett, JASA 50, 1955). The noise is pooled over settings, so that three seeds of many settings see what
three seeds of two cannot. A setting that failed would spoil that pool, and is set apart and tested alone. Whether
it did depends on it, the baseline and calmer settings only: adding a setting that fails changes no other verdict.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import brentq
from scipy.special import ndtr

TOO_FEW = 3  # seeds; fewer get no verdict
SIGNIFICANT = 0.05
POWER = 0.8
MOST_SEEDS = 200  # what would take more is not worth telling
_CONFIRM_FROM = 6  # pairs; the exact sign-flip test cannot reject at 5 % with fewer
_ROUNDING = 1e-6  # relative; spread below it is that of float32
_FAR = 10.0  # standard deviations below the baseline, from which a setting has failed
_RATIO = 2.0  # of mean deviations; less is never called another spread
_LEVENE, _F = 0.01, 0.001  # levels of the two variance tests; with three seeds only F can reject

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


def gains_over(scores: Scores, baseline: str) -> dict[str, Gain]:
    """Compare every setting with `baseline`; a false "better" among all of them has a chance of at most 5 %."""
    base = scores[baseline]
    others = [name for name, values in scores.items() if name != baseline and values]
    together = _usual(scores, baseline, others)
    gains = _blocks({name: scores[name] for name in together}, baseline) if len(together) > 1 else {}
    alone = [name for name in others if name not in gains]
    # One that lost cannot be falsely better, so it takes no part in the correction of the others.
    ahead = sum(_mean_difference(scores[name], base) > 0 for name in alone)
    for name in alone:
        tests = ahead if _mean_difference(scores[name], base) > 0 else 1
        gains[name] = difference(scores[name], base, tests)
    return {name: gains[name] for name in others}


def difference(a: Mapping[Hashable, float], b: Mapping[Hashable, float], tests: int = 1) -> Gain:
    """Compare two settings alone: Student's paired t test on shared seeds, else Welch's; Bonferroni over `tests`."""
    x, y, paired = _samples(a, b)
    mean, n = _mean_difference(a, b), min(len(x), len(y))
    if n < 2:
        return Gain(mean, None, None, None, n, "paired t" if paired else "Welch")
    level = SIGNIFICANT / tests
    if _has_no_spread(x - y, [*x, *y]) if paired else all(_has_no_spread(v, [*x, *y]) for v in (x, y)):
        count = 2.0 ** (1 - n) if paired else 2 / math.comb(len(x) + len(y), len(x))
        p = 1.0 if abs(mean) <= _ROUNDING * max(map(abs, [*x, *y])) else min(1.0, count * tests)
        return Gain(mean, mean, mean, p, n, "exact", level)
    result = stats.ttest_rel(x, y) if paired else stats.ttest_ind(x, y, equal_var=False)
    low, high = result.confidence_interval(1 - level)
    p = min(1.0, tests * float(result.pvalue))
    flip = _sign_flip(x - y) if paired else None
    return Gain(mean, float(low), float(high), p, n, "paired t" if paired else "Welch", level, float(result.df), flip)


def verdict(gain: Gain) -> str:
    """Return better, worse, no difference shown, or too few seeds."""
    if gain.n < TOO_FEW or gain.p is None:
        return "too few seeds"
    if gain.p >= SIGNIFICANT:
        return "no difference shown"
    return "better" if gain.mean > 0 else "worse"


def more_seeds(gain: Gain) -> int | None:
    """Return how many more seeds would show the gain that was seen, if it is the true one, with 80 % power.

    None where it is shown already, where the spread is unknown, or where it takes more than `MOST_SEEDS`.
    """
    if gain.low is None or gain.n < 2 or gain.low == gain.high or verdict(gain) in ("better", "worse"):
        return None
    error = (gain.mean - gain.low) / float(stats.t.isf(gain.level / 2, gain.df))

    def power(n: int) -> float:
        df, effect = gain.df * (n - 1) / (gain.n - 1), abs(gain.mean) / error * math.sqrt(n / gain.n)
        return _power(effect, df, gain.level)

    if power(gain.n + MOST_SEEDS) < POWER:
        return None
    few, many = gain.n, gain.n + MOST_SEEDS
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if power(middle) >= POWER else (middle, many)
    return max(many, TOO_FEW) - gain.n


def smallest_gain(seeds: int, spread: float, settings: int = 1) -> float | None:
    """Return the smallest gain that `settings` compared with one baseline show with 80 % power.

    Args:
        seeds: of each setting and of the baseline.
        spread: standard deviation over seeds of a score within a setting.
        settings: number compared with the baseline, which is not counted.
    """
    if seeds < TOO_FEW:
        return None
    level = 2 * float(stats.norm.sf(_critical(np.full(settings, math.sqrt(0.5)))))
    df = settings * (seeds - 1)
    effect = brentq(lambda effect: _power(effect, df, level) - POWER, 0.1, 1e4)
    return float(effect) * spread * math.sqrt(2 / seeds)


def usual_spread(scores: Scores) -> float | None:
    """Return the median over settings of the standard deviation over seeds; None if every setting has one seed."""
    stds = [std for values in scores.values() if values and (std := mean_std(list(values.values()))[1]) is not None]
    return float(np.median(stds)) if stds else None


def _usual(scores: Scores, baseline: str, others: Sequence[str]) -> list[str]:
    """Return the baseline and the settings to be pooled with it; nothing if the baseline's own spread is unusual.

    Settings are taken in order of their spread until one has significantly more than those before it: by the
    Brown–Forsythe test (Levene's, about the median), or by F, which alone can reject with three seeds. A later
    one cannot change what was decided before.
    """
    base = scores[baseline]
    rows = {name: np.array(list(values.values())) for name, values in scores.items() if values}
    kept = [name for name in others if _pairs_with(scores[name], base) and not _failed(rows[name], rows[baseline])]
    kept = [baseline, *kept]
    single = [name for name in kept if len(rows[name]) == 1]
    spread = [name for name in kept if len(rows[name]) > 1 and not _has_no_spread(rows[name], rows[name])]
    deviations = {name: rows[name] - np.median(rows[name]) for name in spread}
    usual: list[str] = []
    for name in sorted(spread, key=lambda name: float(np.abs(deviations[name]).mean())):
        if len(usual) >= 2 and _is_wider(deviations[name], [deviations[other] for other in usual]):
            break
        usual.append(name)
    usual += single
    return [name for name in kept if name in usual] if baseline in usual else []


def _is_wider(candidate: np.ndarray, others: Sequence[np.ndarray]) -> bool:
    pool = np.concatenate(others)
    if np.abs(candidate).mean() < _RATIO * np.abs(pool).mean():
        return False
    df = sum(len(other) - 1 for other in others)
    ratio = candidate.var(ddof=1) * df / sum(((other - other.mean()) ** 2).sum() for other in others)
    if stats.f.sf(ratio, len(candidate) - 1, df) < _F:
        return True
    return bool(stats.levene(candidate, pool, center="median").pvalue < _LEVENE)


def _blocks(scores: Scores, baseline: str) -> dict[str, Gain]:
    """Fit the two-way model by least squares; empty if nothing is left over to tell the noise from."""
    names, seeds = list(scores), list(dict.fromkeys(seed for values in scores.values() for seed in values))
    cells = [(names.index(name), seeds.index(seed), v) for name, row in scores.items() for seed, v in row.items()]
    row, block, y = (np.array(values) for values in zip(*cells, strict=True))
    design = np.hstack([np.eye(len(names))[row], np.eye(len(seeds))[block][:, 1:]])
    inverse = np.linalg.pinv(design)
    hat = design @ inverse
    squares, free = (y - hat @ y) ** 2, 1 - np.diag(hat)
    df = float(free.sum())
    if df < 0.5 or _is_rounding(math.sqrt(squares.sum() / df), y):
        return {}
    pooled = squares.sum() / df
    # A setting's own variance, where it is larger: moderately unequal spreads pass the variance test with few seeds.
    own = [squares[row == i].sum() / max(free[row == i].sum(), 1e-9) for i in range(len(names))]
    variance = np.array([max(pooled, v) if free[row == i].sum() > 0.1 else pooled for i, v in enumerate(own)])
    first = names.index(baseline)
    rest = [i for i in range(len(names)) if i != first]
    weights = inverse[rest] - inverse[first]
    parts = weights**2 * variance[row]
    total = parts.sum(1)
    own_part = np.array([parts[k, row == i].sum() for k, i in enumerate(rest)])
    shared = np.sqrt(1 - own_part / total)  # loading of the factor that all gains share: the baseline's error
    gain, error = weights @ y, np.sqrt(total)
    single = 2 * stats.t.sf(np.abs(gain) / error, df)
    corrected = np.maximum(single, _any_beyond(stats.norm.isf(single / 2), shared))
    level = 2 * float(stats.norm.sf(_critical(shared)))
    half = float(stats.t.isf(level / 2, df)) * error
    found = {}
    for k, i in enumerate(rest):
        x, z, _ = _samples(scores[names[i]], scores[baseline])
        mean, low, high = float(gain[k]), float(gain[k] - half[k]), float(gain[k] + half[k])
        found[names[i]] = Gain(
            mean, low, high, float(corrected[k]), len(x), "blocks", level, df, _sign_flip(x - z) if len(x) > 1 else None
        )
    return found


_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
_WEIGHTS = _WEIGHTS / math.sqrt(2 * math.pi)


def _any_beyond(z: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Return for each z the probability that any of the correlated standard normals is beyond ±z (Dunnett).

    Normal number i is `shared[i] · u + √(1 − shared[i]²) · e_i`, so that one integral over u is enough.
    """
    center, scale = shared[:, None] * _NODES, np.sqrt(1 - shared**2)[:, None]
    z = np.atleast_1d(z)[:, None, None]
    within = ndtr((z - center) / scale) - ndtr((-z - center) / scale)
    return np.clip(1 - within.prod(1) @ _WEIGHTS, 0, 1)


def _critical(shared: np.ndarray) -> float:
    return float(brentq(lambda z: float(_any_beyond(np.array([z]), shared)[0]) - SIGNIFICANT, 1.0, 8.0, xtol=1e-6))


def _power(effect: float, df: float, level: float) -> float:
    """Return the chance that a two-sided t test rejects in the effect's direction; `effect` in standard errors."""
    return float(stats.nct.sf(stats.t.isf(level / 2, df), df, effect)) if effect < 30 else 1.0


def _sign_flip(differences: np.ndarray) -> float | None:
    """Return the exact two-sided p over all 2^n signs; None of too few pairs to reject at 5 %, or too many to count."""
    n = len(differences)
    if not _CONFIRM_FROM <= n <= 14:
        return None
    signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    sums = np.abs(signs @ differences)
    return float(np.mean(sums >= abs(differences.sum()) * (1 - 1e-9)))


def _samples(a: Mapping[Hashable, float], b: Mapping[Hashable, float]) -> tuple[np.ndarray, np.ndarray, bool]:
    """Return the scores of shared seeds, and True; or all scores, and False."""
    if _pairs_with(a, b):
        shared = [seed for seed in a if seed in b]
        return np.array([a[s] for s in shared]), np.array([b[s] for s in shared]), True
    return np.array(list(a.values())), np.array(list(b.values())), False


def _pairs_with(a: Mapping[Hashable, float], b: Mapping[Hashable, float]) -> bool:
    shared = len(a.keys() & b.keys())
    return shared > 1 or shared == len(a) == len(b)


def _mean_difference(a: Mapping[Hashable, float], b: Mapping[Hashable, float]) -> float:
    x, y, _ = _samples(a, b)
    return float(x.mean() - y.mean())


def _failed(row: np.ndarray, base: np.ndarray) -> bool:
    spreads = [values.std(ddof=1) for values in (row, base) if len(values) > 1]
    return bool(spreads) and base.mean() - row.mean() > _FAR * max(*spreads, _ROUNDING * abs(base.mean()))


def _has_no_spread(values: np.ndarray, scale: Sequence[float] | np.ndarray) -> bool:
    return _is_rounding(float(values.std(ddof=1)), scale)


def _is_rounding(spread: float, scale: Sequence[float] | np.ndarray) -> bool:
    return spread <= _ROUNDING * float(np.abs(scale).max())
