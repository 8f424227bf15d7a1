"""The comparison in words: numbers as they are written, findings, and what to type next."""

from collections import Counter
from collections.abc import Sequence

from kd_lightning.report.commands import baseline_command, train_command
from kd_lightning.report.comparison import Comparison, Result, best_by_validation
from kd_lightning.utils.statistics import Gain, interval, mean_std

VERDICTS = {
    "better": "{} better",
    "worse": "{} worse",
    "no difference shown": "no difference shown for {}",
    "too few seeds": "too few seeds for {}",
    "diverged": "{} diverged",
}
"""Verdict → how many settings have it, in words."""


def signed(value: float) -> str:
    """Return `+1.25` or `−1.25`, and `+0.00` for what is nearly nothing."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def score_words(values: Sequence[float]) -> str:
    """Return `93.06 ± 0.28`; `93.06` for one seed, `–` for none."""
    if not values:
        return "–"
    mean, std = mean_std(values)
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def interval_words(gain: Gain) -> str:
    """Return `+0.93 … +2.73`, or nothing if there is no interval.

    A bound keeps its sign, on which the verdict depends.
    """
    return "" if gain.low is None or gain.high is None else f"{gain.low:+.2f} … {gain.high:+.2f}".replace("-", "−")


def p_words(p: float) -> str:
    """Return a p value with three digits."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


MEANS = (
    " Of students with several tasks, gain and verdict are of the mean accuracy of the tasks; a student that was "
    "trained on one task alone stands in that task's column."
)


def caption(comparison: Comparison) -> str:
    """Explain the columns, and say which student they are about."""
    chosen = sorted({result.selected for result in comparison.results if result.selected})
    student = {"last": "of the last epoch", "best": "of the best epoch on validation"}
    which = student.get(chosen[0], chosen[0]) if len(chosen) == 1 else "that the run deploys (select)"
    return (
        f"All scores are of the student {which}, mean ± standard deviation over n seeds. "
        "Gain: test accuracy above loss=ce of the same student and budget, with its 95 % interval. "
        "Intervals and verdicts hold for all settings with the same baseline at once (Dunnett's test on the two-way "
        "model of setting and seed): better means that the whole interval is above zero. "
        "Test scores are not for selecting; validation scores are."
        f"{MEANS if comparison.tasks else ''}"
    )


def findings(comparison: Comparison) -> list[str]:
    """Answer in sentences: what was shown, what is best by validation, which baseline is missing."""
    results = comparison.results
    verdicts = Counter(r.verdict for r in results if r.verdict in VERDICTS)
    runs = sum(len(result.test) for result in results)
    scope = f"{_count(runs, 'finished run')} in {_count(len(results), 'setting')}"
    told = ", ".join(words.format(verdicts[word]) for word, words in VERDICTS.items() if verdicts[word])
    lines = [f"{scope}. Against plain training at equal budget: {told}." if told else f"{scope}."]
    if all(result.setting.is_baseline for result in results):
        lines = [f"{scope}, of plain training alone."]
    elif not any(result.gain for result in results):
        lines = [f"{scope}; none has a baseline (loss=ce, same student and budget) to be compared with."]
    for members in comparison.choices():
        if best := best_by_validation(members):
            most = max(len(result.validation) for result in members)
            lines.append(_best_words(best, list(best.validation.values()), most))
    return lines


def _best_words(best: Result, validation: Sequence[float], most: int) -> str:
    bounds = interval(validation)
    between = f" (95 % interval {max(bounds[0], 0):.2f} … {min(bounds[1], 100):.2f})" if bounds else ""
    gain = "" if best.gain is None else f", gain {signed(best.gain.mean)}: {best.verdict}"
    few = f" of {_count(len(validation), 'seed')}, others have {most}" if len(validation) < most else ""
    mean = mean_std(validation)[0]
    return f"Best by validation: {best.label}{few}, {mean:.2f} %{between}; on test {best.mean:.2f} %{gain}."


def commands(comparison: Comparison) -> list[tuple[str, str]]:
    """Return (purpose, command): training the best settings again, and adding the baselines that are missing."""
    chosen = [best for members in comparison.choices() if (best := best_by_validation(members))]
    found = [(f"train {best.label} again", train_command(best.setting)) for best in chosen]
    budgets = comparison.budgets()
    for i, members in enumerate(budgets):
        if any(result.setting.is_baseline for result in members):
            continue
        seeds = dict.fromkeys(seed for result in members for seed in result.setting.runs if "/" not in seed)
        name = "ce" if len(budgets) == 1 else f"ce{i}"
        if seeds and (command := baseline_command(members[0].setting, seeds, name)):
            found.append(("add the baseline", command))
    return found


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
