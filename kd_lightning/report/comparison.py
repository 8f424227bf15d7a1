"""Settings side by side: scores over seeds, the gain over plain training at equal budget, and what limits both."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kd_lightning.report.groups import Setting, group
from kd_lightning.runs.directory import Run
from kd_lightning.training.summary import teacher_name
from kd_lightning.utils.statistics import TOO_FEW, Difference, holm, paired_difference, verdict, welch_difference

_SPLIT = ("data._target_", "data.val_size", "data.test_size", "data.split_seed")


@dataclass
class Row:
    """A setting's scores of test data in percent, one value a seed; the gain is in points."""

    setting: Setting
    last: list[float]
    best: list[float]
    gain: Difference | None = None
    corrected_p: float | None = None
    verdict: str = "–"
    marks: list[int] = field(default_factory=list)
    """Numbers of the notes that hold for it, from 1."""

    @property
    def label(self) -> str:
        return self.setting.label

    @property
    def runs(self) -> list[Run]:
        return list(self.setting.runs.values())

    def scores(self, name: str) -> list[float]:
        """A test score of the last epoch, as metrics.json has it, of the seeds that have it."""
        return [_test(run, "last")[name] for run in self.runs if name in _test(run, "last")]


@dataclass
class Comparison:
    rows: list[Row]
    teachers: dict[str, Run]
    """Name → a run that measured it."""
    notes: list[str]

    def mark(self, row: Row, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)
        if self.notes.index(note) + 1 not in row.marks:
            row.marks.append(self.notes.index(note) + 1)


def compare_runs(found: Sequence[Run], notes: Sequence[str] = ()) -> Comparison:
    """The gain is the last epoch's, on which nothing was selected; its p is corrected for all gains compared (Holm)."""
    settings = group(found)
    teachers = {teacher_name(run.config): run for run in reversed(found) if "teacher" in run.metrics}
    comparison = Comparison([_row(s) for s in settings], dict(reversed(teachers.items())), list(notes))
    baselines = {row.setting.budget: row for row in comparison.rows if row.setting.is_baseline}
    for row in comparison.rows:
        _add_gain(comparison, row, baselines.get(row.setting.budget))
        _add_marks(comparison, row)
    tested = {
        i: r.gain.p for i, r in enumerate(comparison.rows) if r.gain and r.gain.p is not None and r.gain.n >= TOO_FEW
    }
    for i, p in zip(tested, holm(list(tested.values())), strict=True):
        comparison.rows[i].corrected_p = p
    for row in comparison.rows:
        row.verdict = "baseline" if row.setting.is_baseline else verdict(row.gain, row.corrected_p) if row.gain else "–"
    _mark_unequal(comparison)
    return comparison


def _row(setting: Setting) -> Row:
    last, best = (
        [100 * _test(run, name)["accuracy"] for run in setting.runs.values() if name in run.metrics["student"]]
        for name in ("last", "best")
    )
    return Row(setting, last, best)


def _add_gain(comparison: Comparison, row: Row, baseline: Row | None) -> None:
    if row is baseline:
        return
    if baseline is None:
        comparison.mark(row, "no run with loss=ce of the same student and budget; no gain can be told")
        return
    mine, theirs = (dict(zip(r.setting.runs, r.last, strict=True)) for r in (row, baseline))
    shared = [seed for seed in mine if seed in theirs]
    if len(shared) > 1 or len(shared) == len(mine) == len(theirs):
        row.gain = paired_difference([mine[s] for s in shared], [theirs[s] for s in shared])
        if len(shared) < max(len(mine), len(theirs)):
            comparison.mark(row, f"only {len(shared)} seeds are those of its baseline; the gain is that of these")
    else:
        row.gain = welch_difference(row.last, baseline.last)
        comparison.mark(row, "its seeds are not those of its baseline; Welch's test instead of the paired one")


def _add_marks(comparison: Comparison, row: Row) -> None:
    if len(row.last) == 1:
        comparison.mark(row, "one seed only: no spread, no interval")
    if not row.best:
        comparison.mark(row, "no validation split, so no best epoch was selected; the last one stands")
    if row.setting.repeated:
        seeds = ", ".join(row.setting.repeated)
        comparison.mark(row, f"several runs of the same seed ({seeds}); the last of them counts")


def _mark_unequal(comparison: Comparison) -> None:
    """Marks the rows whose data, budget, machine or code is not that of the most."""
    for key in [*_SPLIT, *_budget(comparison)]:
        consequence = "not comparable" if key in _SPLIT else "unequal budget"
        for row, word, usual in _minority(
            comparison.rows, [_word(row.setting.values.get(key)) for row in comparison.rows]
        ):
            comparison.mark(row, f"{consequence}: {key} is {word}, elsewhere {usual}")
    for key in ("precision", "device", "git_revision"):
        seen = [sorted({str(run.metrics.get(key)) for run in row.runs}) for row in comparison.rows]
        every = ", ".join(sorted({word for words in seen for word in words}))
        for row, _, usual in _minority(comparison.rows, [" and ".join(words) for words in seen]):
            comparison.mark(row, f"{key} differs ({every}); here it is not the usual {usual}")


def _budget(comparison: Comparison) -> list[str]:
    """Keys of the budget that all rows have: of another optimizer, say, its name tells enough."""
    values = [row.setting.budget_values() for row in comparison.rows]
    return [k for k in values[0] if k not in _SPLIT and all(k in v for v in values)]


def _minority(rows: Sequence[Row], words: Sequence[str]) -> list[tuple[Row, str, str]]:
    """(row, its word, the usual word) of the rows whose word is not the most frequent one."""
    usual = Counter(words).most_common(1)[0][0]
    return [(row, word, usual) for row, word in zip(rows, words, strict=True) if word != usual]


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value).rpartition(".")[2]


def _test(run: Run, name: str) -> dict[str, float]:
    scores: dict[str, float] = run.metrics["student"][name]["test"]
    return scores
