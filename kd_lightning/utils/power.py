"""Power of a comparison: the gain that some seeds can show, and the seeds that a gain needs."""

import math

import numpy as np
from scipy import stats
from scipy.optimize import brentq

from kd_lightning.utils.dunnett import critical
from kd_lightning.utils.statistics import TOO_FEW, Gain, Scores, mean_std, verdict

POWER = 0.8
MOST_SEEDS = 200  # what would take more is not worth telling


def more_seeds(gain: Gain) -> int | None:
    """Return how many more seeds would show the gain that was seen, if it is the true one, with 80 % power.

    None where it is shown already, where the spread is unknown, or where it takes more than `MOST_SEEDS`.
    """
    if gain.low is None or gain.n < 2 or verdict(gain) in ("better", "worse"):
        return None
    error = (gain.mean - gain.low) / float(stats.t.isf(gain.level / 2, gain.df))

    def power(n: int) -> float:
        df, effect = gain.df * (n - 1) / (gain.n - 1), abs(gain.mean) / error * math.sqrt(n / gain.n)
        return chance(effect, df, gain.level)

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
    level = 2 * float(stats.norm.sf(critical(np.full(settings, math.sqrt(0.5)))))
    df = settings * (seeds - 1)
    effect = brentq(lambda effect: chance(effect, df, level) - POWER, 0.1, 1e4)
    return float(effect) * spread * math.sqrt(2 / seeds)


def usual_spread(scores: Scores) -> float | None:
    """Return the median over settings of the standard deviation over seeds; None if every setting has one seed."""
    stds = [std for values in scores.values() if values and (std := mean_std(list(values.values()))[1]) is not None]
    return float(np.median(stds)) if stds else None


def chance(effect: float, df: float, level: float) -> float:
    """Return the chance that a two-sided t test rejects in the effect's direction; `effect` in standard errors."""
    return float(stats.nct.sf(stats.t.isf(level / 2, df), df, effect)) if effect < 30 else 1.0
