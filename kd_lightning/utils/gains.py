"""Gains of settings over a baseline, with simultaneous intervals.

`gains_over` fits score = setting + seed + noise to all settings with a usual spread, and compares each with the
baseline (Dunnett, JASA 50, 1955). The noise is pooled over settings, so that three seeds of many settings see what
three seeds of two cannot. A setting that failed would spoil that pool, and is set apart and tested alone. Whether
it did depends on it, the baseline and calmer settings only: adding a setting that fails changes no other verdict.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from kd_lightning.utils.dunnett import any_beyond, critical
from kd_lightning.utils.statistics import (
    ROUNDING,
    Gain,
    Scores,
    difference,
    has_no_spread,
    is_rounding,
    mean_difference,
    pairs_with,
    samples,
    sign_flip,
)

_FAR = 10.0  # standard deviations below the baseline, from which a setting has failed
_RATIO = 2.0  # of mean deviations; less is never called another spread
_LEVENE, _F = 0.01, 0.001  # levels of the two variance tests; with three seeds only F can reject


def gains_over(scores: Scores, baseline: str) -> dict[str, Gain]:
    """Compare every setting with `baseline`; a false "better" among all of them has a chance of at most 5 %."""
    base = scores[baseline]
    others = [name for name, values in scores.items() if name != baseline and values]
    together = _usual(scores, baseline, others)
    gains = _blocks({name: scores[name] for name in together}, baseline) if len(together) > 1 else {}
    alone = [name for name in others if name not in gains]
    # One that lost cannot be falsely better, so it takes no part in the correction of the others.
    ahead = sum(mean_difference(scores[name], base) > 0 for name in alone)
    for name in alone:
        tests = ahead if mean_difference(scores[name], base) > 0 else 1
        gains[name] = difference(scores[name], base, tests)
    return {name: gains[name] for name in others}


def _usual(scores: Scores, baseline: str, others: Sequence[str]) -> list[str]:
    """Return the baseline and the settings to be pooled with it; nothing if the baseline's own spread is unusual.

    Settings are taken in order of their spread until one has significantly more than those before it: by the
    Brown–Forsythe test (Levene's, about the median), or by F, which alone can reject with three seeds. A later
    one cannot change what was decided before.
    """
    base = scores[baseline]
    rows = {name: np.array(list(values.values())) for name, values in scores.items() if values}
    kept = [name for name in others if pairs_with(scores[name], base) and not _failed(rows[name], rows[baseline])]
    kept = [baseline, *kept]
    single = [name for name in kept if len(rows[name]) == 1]
    spread = [name for name in kept if len(rows[name]) > 1 and not has_no_spread(rows[name], rows[name])]
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


def _failed(row: np.ndarray, base: np.ndarray) -> bool:
    spreads = [values.std(ddof=1) for values in (row, base) if len(values) > 1]
    return bool(spreads) and base.mean() - row.mean() > _FAR * max(*spreads, ROUNDING * abs(base.mean()))


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
    if df < 0.5 or is_rounding(math.sqrt(squares.sum() / df), y):
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
    corrected = np.maximum(single, any_beyond(stats.norm.isf(single / 2), shared))
    level = 2 * float(stats.norm.sf(critical(shared)))
    half = float(stats.t.isf(level / 2, df)) * error
    found = {}
    for k, i in enumerate(rest):
        x, z, _ = samples(scores[names[i]], scores[baseline])
        mean, low, high = float(gain[k]), float(gain[k] - half[k]), float(gain[k] + half[k])
        found[names[i]] = Gain(
            mean, low, high, float(corrected[k]), len(x), "blocks", level, df, sign_flip(x - z) if len(x) > 1 else None
        )
    return found
