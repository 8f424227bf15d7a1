"""The statistics agree with scipy, keep their error rate, see true gains, and bear few or equal values."""

import math

import numpy as np
import pytest
from scipy import stats

from kd_lightning.utils.gains import gains_over
from kd_lightning.utils.power import more_seeds, smallest_gain, usual_spread
from kd_lightning.utils.statistics import Gain, difference, interval, mean_std, verdict

A, B = [93.1, 92.4, 93.9, 93.3, 92.8], [92.2, 92.5, 93.0, 92.1, 92.4]


def seeds(values, first=0):
    return {first + i: float(v) for i, v in enumerate(values)}


def table(rows):
    return {str(i): seeds(row) for i, row in enumerate(rows)}


def verdicts(scores, baseline="0"):
    return {name: verdict(gain) for name, gain in gains_over(scores, baseline).items()}


def test_mean_std_and_interval():
    assert mean_std([1.0, 2.0, 4.0]) == (pytest.approx(7 / 3), pytest.approx(math.sqrt(7 / 3)))
    assert mean_std([5.0]) == (5.0, None) and interval([1.0]) is None
    assert interval(A) == pytest.approx(stats.t.interval(0.95, len(A) - 1, np.mean(A), stats.sem(A)))
    assert usual_spread({"a": seeds(A), "b": seeds([1.0])}) == pytest.approx(np.std(A, ddof=1))


def test_two_settings_are_the_paired_t_test():
    gain, expected = gains_over({"a": seeds(A), "b": seeds(B)}, "b")["a"], stats.ttest_rel(A, B)
    assert gain.p == pytest.approx(expected.pvalue, rel=1e-6) and gain.n == 5 and not gain.apart
    assert (gain.low, gain.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-5)


def test_other_seeds_are_welchs_test():
    for other in (B, B[:3], B[:2]):
        gain = gains_over({"a": seeds(A), "b": seeds(other, first=10)}, "b")["a"]
        expected = stats.ttest_ind(A, other, equal_var=False)
        assert gain.p == pytest.approx(expected.pvalue) and gain.test == "Welch" and gain.n == len(other)
        assert (gain.low, gain.high) == pytest.approx(tuple(expected.confidence_interval(0.95)))


def test_equal_spreads_are_dunnetts_test():
    """Without an effect of the seed, the two-way model and scipy's one-way Dunnett test nearly agree."""
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(5, 200)) + np.array([0, 0.1, 0.2, 0.3, 0])[:, None]
    expected = stats.dunnett(*rows[1:], control=rows[0], random_state=np.random.default_rng(0))
    gains = gains_over(table(rows), "0")
    assert [gains[str(i)].p for i in range(1, 5)] == pytest.approx(expected.pvalue, abs=0.03)


def test_the_verdict_follows_the_interval():
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows = rng.normal(size=(rng.integers(2, 8), rng.integers(3, 6))) + rng.normal(size=(1, 1))
        rows[1] += 2
        for gain in gains_over(table(rows), "0").values():
            assert (verdict(gain) == "better") == (gain.low > 0) and (verdict(gain) == "worse") == (gain.high < 0)


def test_an_effect_of_the_seed_cancels():
    rng = np.random.default_rng(0)
    rows, shift = rng.normal(size=(4, 5)), 20 * rng.normal(size=5)
    plain, shifted = gains_over(table(rows), "0"), gains_over(table(rows + shift), "0")
    for name, gain in plain.items():
        other = shifted[name]
        assert other.n == gain.n
        assert (other.mean, other.low, other.high, other.p) == pytest.approx((gain.mean, gain.low, gain.high, gain.p))


def test_a_missing_run_does_not_break_the_blocks():
    scores = table(np.random.default_rng(0).normal(size=(4, 5)))
    del scores["1"][2], scores["0"][4]
    gains = gains_over(scores, "0")
    assert gains["1"].test == "blocks" and gains["1"].n == 3 and gains["2"].n == 4


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("failing", ["spread", "far", "constant"])
def test_a_method_that_fails_changes_no_other_verdict(n, failing):
    rng = np.random.default_rng(n)
    for _ in range(20):
        rows = 80 + rng.normal(size=(rng.integers(3, 9), n)) + rng.normal(size=n)
        rows[1] += 1.5
        bad = {"spread": rng.normal(40, 20, n), "far": 20 + rng.normal(size=n), "constant": np.full(n, 10.0)}[failing]
        before, after = gains_over(table(rows), "0"), gains_over(table([*rows, bad]), "0")
        assert {name: after[name] for name in before} == before
        assert verdict(after[str(len(rows))]) != "better" and after[str(len(rows))].apart


def null_tables(count):
    """Tables of 5 to 24 methods and 3 to 10 seeds without a gain; some with unequal spreads, some with a collapse."""
    rng = np.random.default_rng(2024)
    for i in range(count):
        methods, n = rng.integers(5, 25), rng.integers(3, 11)
        spread = np.exp(rng.normal(0, 0.5, methods)) if i % 2 else np.ones(methods)
        rows = 80 + rng.normal(size=(methods, n)) * spread[:, None] + rng.choice([0, 1]) * rng.normal(size=n)
        if i % 4 > 1:
            rows[-1] = rng.normal(40, 15, n)
        yield i, table(rows)


def test_false_better_at_most_5_percent():
    found = [(i % 2, "better" in verdicts(scores).values()) for i, scores in null_tables(1000)]
    assert np.mean([better for _, better in found]) <= 0.05
    for unequal in (0, 1):
        assert np.mean([better for kind, better in found if kind == unequal]) <= 0.06


def test_a_baseline_with_a_spread_of_its_own_makes_no_false_better():
    rng = np.random.default_rng(5)
    found = []
    for i in range(200):
        rows = 80 + rng.normal(size=(10, 3 + i % 4))
        rows[0] = 80 + 2 * rng.normal(size=rows.shape[1])
        found.append("better" in verdicts(table(rows)).values())
    assert np.mean(found) <= 0.08


def test_pooling_sees_what_single_tests_cannot():
    """Three seeds of a dozen settings: Bonferroni over paired t tests finds nearly nothing of a gain of 4 sigma."""
    rng = np.random.default_rng(1)
    pooled = single = 0
    for _ in range(30):
        rows = rng.normal(size=(12, 3))
        rows[1:7] += 4
        pooled += list(verdicts(table(rows)).values())[:6].count("better")
        single += sum(stats.ttest_rel(rows[i], rows[0]).pvalue * 11 < 0.05 for i in range(1, 7))
    assert pooled > 0.8 * 180 and single < 0.3 * 180


def test_the_sign_flip_test_is_exact():
    gain = difference(seeds([2.0, 3.1, 4.2, 5.0, 6.3, 7.1]), seeds([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert gain.sign_flip_p == 2 / 2**6
    expected = stats.permutation_test((np.subtract([*A, 1.0], [*B, 2.0]),), np.mean, permutation_type="samples")
    assert difference(seeds([*A, 1.0]), seeds([*B, 2.0])).sign_flip_p == pytest.approx(expected.pvalue)
    assert difference(seeds(A), seeds(B)).sign_flip_p is None, "five pairs cannot reject"


def test_one_seed_has_a_gain_and_no_more():
    for gain in (difference({0: 3.0}, {0: 1.0}), gains_over({"a": {0: 3.0}, "b": {0: 1.0}, "c": {0: 2.0}}, "b")["a"]):
        assert (gain.mean, gain.low, gain.high, gain.p, gain.n) == (2.0, None, None, None, 1)
        assert verdict(gain) == "too few seeds" and more_seeds(gain) is None


def test_without_spread_the_test_is_exact():
    def p(a, b, first=0):
        return gains_over({"a": seeds(a), "b": seeds(b, first)}, "b")["a"].p

    assert p([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]) == 2 / 2**3
    assert p(A, A) == 1.0 and p([1.0] * 3, [1.0] * 3, 9) == 1.0
    assert p([2.0] * 3, [1.0] * 3, 9) == 2 / 20
    float32 = [float(np.float32(v)) for v in (0.9, 0.8, 0.7)]
    assert p(float32, [v - 0.1 for v in (0.9, 0.8, 0.7)]) == 0.25, "rounding is no spread"


def test_more_seeds_reach_the_power_that_they_promise():
    rng = np.random.default_rng(0)
    gain = gains_over({"a": seeds([0.9, -0.3, 1.2, 0.6]), "b": seeds([0.3, 0.5, -0.2, 0.1])}, "b")["a"]
    assert verdict(gain) == "no difference shown"
    n = gain.n + more_seeds(gain)
    spread = np.std(np.subtract([0.9, -0.3, 1.2, 0.6], [0.3, 0.5, -0.2, 0.1]), ddof=1)
    draws = rng.normal(gain.mean, spread, size=(4000, n))
    assert np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05) == pytest.approx(0.8, abs=0.05)
    assert more_seeds(Gain(0.001, -1.0, 1.002, 0.9, 5, "blocks", 0.05, 4.0)) is None, "hopeless"
    assert more_seeds(Gain(2.0, 1.0, 3.0, 0.01, 5, "blocks", 0.05, 4.0)) is None, "shown already"


@pytest.mark.parametrize(("n", "settings"), [(5, 1), (3, 8)])
def test_the_smallest_gain_shows_four_times_in_five(n, settings):
    rng = np.random.default_rng(7)
    gain, found = smallest_gain(n, 0.5, settings), []
    for _ in range(250):
        rows = 0.5 * rng.normal(size=(settings + 1, n))
        rows[1] += gain
        found.append(verdicts(table(rows))["1"] == "better")
    assert 0.65 < np.mean(found) < 0.9
    assert smallest_gain(2, 0.5) is None and smallest_gain(6, 0.5) < smallest_gain(5, 0.5)
