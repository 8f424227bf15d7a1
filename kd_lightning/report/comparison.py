"""Settings side by side: scores over seeds, the gain over plain training at equal budget, and the best by validation.

All scores are those of the student that a run deploys (`select`: its last epoch, or its best on validation).
"""

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kd_lightning.report.budgets import LENGTH
from kd_lightning.report.groups import Setting, group
from kd_lightning.report.teachers import teachers_of
from kd_lightning.runs.directory import Run
from kd_lightning.utils.gains import gains_over
from kd_lightning.utils.names import task_name, tasks_in
from kd_lightning.utils.power import more_seeds
from kd_lightning.utils.statistics import TOO_FEW, Gain, mean_std, verdict

_SPLIT = ("data._target_", "data.val_size", "data.test_size", "data.split_seed", "data.labels")
_TUNED = ("data.batch_size", "data.global_batch_size", "data.augment.")
"""Keys of the data that may differ between settings of which one is chosen."""


@dataclass
class Result:
    """A setting's scores in percent, and its gain over the baseline in points of test accuracy."""

    setting: Setting
    test: dict[Hashable, float]
    """Seed → test accuracy."""
    validation: dict[Hashable, float]
    """Seed → validation accuracy; empty without a validation split."""
    gain: Gain | None = None
    task_gains: dict[str, Gain] = field(default_factory=dict)
    """Task → gain in it alone, if there are several; `gain` is that of their mean."""
    verdict: str = "–"
    marks: list[int] = field(default_factory=list)
    """Numbers of the notes that hold for it, from 1."""

    @property
    def label(self) -> str:
        return self.setting.label

    @property
    def runs(self) -> list[Run]:
        """The finished runs."""
        return list(self.setting.runs.values())

    @property
    def scores(self) -> list[float]:
        """Test accuracies."""
        return list(self.test.values())

    @property
    def mean(self) -> float:
        """Mean test accuracy; the setting has a finished run."""
        return mean_std(self.scores)[0]

    @property
    def selected(self) -> str:
        """The student that is compared: `last`, or `best`."""
        return str(next(iter(self.runs)).metrics["select"]) if self.runs else ""

    def task_scores(self, task: str) -> dict[Hashable, float]:
        """Return seed → test accuracy in one task, of students with several heads or with that task alone."""
        alone = self.setting.values.get("data.task") == task
        key = "accuracy" if alone else task_name(task, "accuracy")
        found = {seed: run.student["test"].get(key) for seed, run in self.setting.runs.items()}
        return {seed: 100 * value for seed, value in found.items() if value is not None}

    def values(self, name: str) -> list[float]:
        """Return another test score, as metrics.json names it, of the seeds that have it."""
        return [run.student["test"][name] for run in self.runs if run.student["test"].get(name) is not None]


@dataclass
class Comparison:
    """All settings, with the notes that explain the numbers in their rows."""

    results: list[Result]
    teachers: dict[str, Run]
    """Name → a run that measured it."""
    notes: list[str]

    @property
    def tasks(self) -> list[str]:
        """Tasks that some of the students have, if they have several."""
        found = [task for result in self.results for run in result.runs for task in tasks_in(run.student["test"])]
        return [task for task in dict.fromkeys(found) if task]

    def mark(self, result: Result, note: str) -> None:
        """Add a note to a setting."""
        if note not in self.notes:
            self.notes.append(note)
        if self.notes.index(note) + 1 not in result.marks:
            result.marks.append(self.notes.index(note) + 1)

    def budgets(self) -> list[list[Result]]:
        """Return the settings that may be compared: equal student, data and training, counted in images seen."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            found.setdefault(result.setting.budget, []).append(result)
        return list(found.values())

    def choices(self) -> list[list[Result]]:
        """Return the settings of which validation may choose one: equal student and data, whatever the training."""
        found: dict[str, list[Result]] = {}
        for result in self.results:
            fixed = (k for k in result.setting.values if k.startswith(("model.student", "data.")))
            same = [(k, str(result.setting.values[k])) for k in sorted(fixed) if not k.startswith(_TUNED)]
            found.setdefault(str(same), []).append(result)
        return list(found.values())


def compare_runs(found: Sequence[Run], notes: Sequence[str] = ()) -> Comparison:
    """Compare runs, finished or diverged, in groups of equal budget."""
    results = [_result(setting) for setting in group(found)]
    comparison = Comparison(results, teachers_of(found), list(notes))
    for members in comparison.budgets():
        baseline = next((result for result in members if result.setting.is_baseline), None)
        if baseline is None or not baseline.test:
            for result in (member for member in members if not member.setting.is_baseline):
                comparison.mark(
                    result, "no finished run with loss=ce of the same student and budget, so there is no gain"
                )
        else:
            _add_gains(comparison, members, baseline)
    for result in comparison.results:
        _add_marks(comparison, result)
    _mark_unequal(comparison)
    return comparison


def best_by_validation(members: Sequence[Result]) -> Result | None:
    """Return the setting with the highest mean validation accuracy; None unless two or more have one.

    A setting of which a seed diverged is not chosen.
    """
    known = [result for result in members if result.validation and not result.setting.diverged]
    if len(known) < 2:
        return None
    return max(known, key=lambda result: mean_std(list(result.validation.values()))[0])


def _result(setting: Setting) -> Result:
    test: dict[Hashable, float] = {s: 100 * run.student["test"]["accuracy"] for s, run in setting.runs.items()}
    known = {seed: run.student["val"]["accuracy"] for seed, run in setting.runs.items() if "val" in run.student}
    result = Result(setting, test, {seed: 100 * value for seed, value in known.items()})
    if not test:
        result.verdict = "diverged"
    return result


def _add_gains(comparison: Comparison, members: Sequence[Result], baseline: Result) -> None:
    finished = {str(i): result for i, result in enumerate(members) if result.test}
    name = next(i for i, result in finished.items() if result is baseline)
    gains = gains_over({i: result.test for i, result in finished.items()}, name)
    baseline.verdict = "baseline"
    for i, gain in gains.items():
        result = finished[i]
        result.gain, result.verdict = gain, verdict(gain)
        for note in gain_notes(gain, len(members), result.test, baseline.test):
            comparison.mark(result, note)
    for task in comparison.tasks:
        scores = {i: result.task_scores(task) for i, result in finished.items()}
        for i, gain in gains_over(scores, name).items() if all(scores.values()) else ():
            finished[i].task_gains[task] = gain


def gain_notes(
    gain: Gain, members: int, mine: Mapping[Hashable, float], base: Mapping[Hashable, float]
) -> Iterable[str]:
    """Yield what a reader must know about one gain; `members` counts the settings of the budget."""
    if gain.test == "Welch" and gain.n > 1:
        yield "its seeds are not those of its baseline; Welch's test"
    elif gain.n < max(len(mine), len(base)):
        yield f"only {gain.n} {'seed is' if gain.n == 1 else 'seeds are'} shared with its baseline"
    if gain.apart and gain.n >= TOO_FEW and members > 2 and gain.test != "Welch":
        yield "its spread or its level is not that of the others; tested alone, outside their statistics"
    if gain.test == "exact":
        yield "no spread between seeds: an exact test, without an interval"
    if gain.n == 1:
        yield "one seed only: no spread"
    if verdict(gain) in ("better", "worse") and (gain.sign_flip_p or 0) >= 0.05:
        yield "the exact sign-flip test of its seeds alone does not confirm it"


def seeds_words(gain: Gain) -> str:
    """Return `12 more seeds would show it`, or nothing if that is not the case."""
    if gain.mean > 0 and gain.n == 1:
        return f"{TOO_FEW - 1} more seeds at least are needed"
    if gain.mean <= 0 or (count := more_seeds(gain)) is None:
        return ""
    return f"{count} more {'seed' if count == 1 else 'seeds'} would show it"


def _add_marks(comparison: Comparison, result: Result) -> None:
    if result.setting.diverged:
        seeds = ", ".join(result.setting.diverged)
        comparison.mark(result, f"diverged: seed {seeds}; left out of the statistics")
    if result.test and not result.validation:
        comparison.mark(result, "no validation split, so nothing can be selected")
    if (labels := result.setting.values.get("data.labels")) is not None:
        comparison.mark(
            result, f"accuracy is by the labels in {labels}; if a teacher wrote them, it is agreement with it"
        )
    if result.setting.repeated:
        seeds = ", ".join(result.setting.repeated)
        comparison.mark(result, f"several runs of the same seed ({seeds}); the last of them counts")


def _mark_unequal(comparison: Comparison) -> None:
    """Mark settings whose data, budget, machine or code is not that of most of them."""
    results = comparison.results
    for key in [*_SPLIT, *_budget(results)]:
        for result, word, usual in _minority(results, [_word(key, r.setting.values.get(key)) for r in results]):
            consequence = "not comparable" if key in _SPLIT else "unequal budget"
            if key == LENGTH and any(_word(key, r.setting.values[key]) == usual for r in _same_budget(results, result)):
                consequence = f"equal budget, {result.setting.images_seen:,} samples seen"
            comparison.mark(result, f"{consequence}: {key} is {word}, elsewhere {usual}")
    finished = [result for result in results if result.runs]
    for key in ("select", "precision", "device", "git_revision"):
        seen = [sorted({str(run.metrics.get(key)) for run in result.runs}) for result in finished]
        every = ", ".join(sorted({word for words in seen for word in words}))
        for result, _, usual in _minority(finished, [" and ".join(words) for words in seen]):
            comparison.mark(result, f"{key} differs ({every}); here it is not the usual {usual}")


def _same_budget(results: Sequence[Result], one: Result) -> list[Result]:
    return [result for result in results if result.setting.budget == one.setting.budget]


def _budget(results: Sequence[Result]) -> list[str]:
    """Return the keys of the budget that all settings have; an optimizer's own keys are told by its name.

    A task is no budget: students of one task and of several stand beside each other in that task's column.
    """
    values = [result.setting.budget_values() for result in results]
    return [k for k in values[0] if k not in (*_SPLIT, "data.task") and all(k in v for v in values)]


def _minority(results: Sequence[Result], words: Sequence[str]) -> list[tuple[Result, str, str]]:
    """Return (setting, its word, the usual word) where its word is not the most frequent one."""
    if not words:
        return []
    usual = Counter(words).most_common(1)[0][0]
    return [(result, word, usual) for result, word in zip(results, words, strict=True) if word != usual]


def _word(key: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return str(value).rpartition(".")[2] if key.endswith("_target_") else str(value)
