"""The comparison as words: for the terminal, as Markdown, as CSV."""

import csv
import io
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from kd_lightning.report.comparison import Comparison, Row
from kd_lightning.runs.directory import Run
from kd_lightning.utils.statistics import mean_std

CAPTION = (
    "Test accuracy in %, mean ± standard deviation over n seeds, of the last epoch and of the best on validation. "
    "Gain: last epoch over loss=ce of the same student and budget, in points, with its own 95 % interval. "
    "Verdict: t test at 5 %, paired by seed where seeds pair, corrected for all gains tested here (Holm)."
)
HEADER = ("setting", "n", "last", "best", "gain", "95 % interval", "p (Holm)", "verdict", "agreement %", "seconds")


def terminal_table(comparison: Comparison) -> Group:
    """Fits 80 columns."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    table.add_column("setting", overflow="fold", min_width=14)
    for column in ("n", "last %", "best %", "gain"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=10)
    for name, run in comparison.teachers.items():
        table.add_row(f"teacher {name}", "", teacher_accuracy(run), "", "", "")
    for row in comparison.rows:
        gain, bounds = gain_words(row), interval_words(row).replace(" ", "")
        label = Text(row.label + "".join(f" [{m}]" for m in row.marks))
        last, best = score_words(row.last), score_words(row.best)
        table.add_row(label, str(len(row.last)), last, best, f"{gain}\n{bounds}" if bounds else gain, row.verdict)
    notes = [f"[{i}] {note}" for i, note in enumerate(comparison.notes, 1)]
    return Group(Text(findings(comparison)), "", table, "", Text("\n".join([*notes, CAPTION])))


def markdown(comparison: Comparison, title: str) -> str:
    """A table with its caption and notes."""
    rule = "|---|" + "---:|" * 6 + "---|---:|---:|"
    lines = [f"# {title}", "", findings(comparison), "", CAPTION, "", f"| {' | '.join(HEADER)} |", rule]
    for name, run in comparison.teachers.items():
        lines.append(f"| teacher {name} |  | {teacher_accuracy(run)} |  |  |  |  |  |  |  |")
    for row in comparison.rows:
        marks = "".join(f" [{m}]" for m in row.marks)
        lines.append("| " + " | ".join([f"`{row.label}`{marks}", *cells(row)[1:]]) + " |")
    return "\n".join([*lines, "", *(f"{i}. {note}" for i, note in enumerate(comparison.notes, 1))]).rstrip() + "\n"


def findings(comparison: Comparison) -> str:
    """What came out, in a sentence, null results included."""
    verdicts = Counter(row.verdict for row in comparison.rows if row.gain)
    count = sum(len(row.last) for row in comparison.rows)
    scope = f"{_count(count, 'finished run')} in {_count(len(comparison.rows), 'setting')}"
    if not verdicts:
        return f"{scope}; none has a baseline (loss=ce, same student and budget) to be compared with."
    words = ("better", "worse", "no difference shown", "too few seeds")
    told = ", ".join(f"{word}: {verdicts[word]}" for word in words if verdicts[word])
    return f"{scope}. Of {sum(verdicts.values())} compared with plain training at equal budget, {told}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def cells(row: Row) -> list[str]:
    """What stands below HEADER."""
    return [
        row.label,
        str(len(row.last)),
        score_words(row.last),
        score_words(row.best),
        gain_words(row),
        interval_words(row),
        "" if row.corrected_p is None else f"{row.corrected_p:.3f}" if row.corrected_p >= 0.001 else "< 0.001",
        row.verdict,
        score_words([100 * v for v in row.scores("agreement")]),
        f"{seconds:.0f}" if (seconds := mean_seconds(row)) is not None else "",
    ]


def csv_text(comparison: Comparison) -> str:
    """One line a setting with all numbers in full; several values of a cell are divided by spaces."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ("last", "best")
    head = ["setting", "n", "seeds", *(f"{n}_{what}" for n in names for what in ("mean", "std", "values"))]
    head += ["gain", "gain_low", "gain_high", "p", "p_holm", "test", "verdict", "parameters", "macs", "notes", "runs"]
    writer.writerow(head)
    for row in comparison.rows:
        gain, student = row.gain, row.runs[0].metrics["student"]
        test = "" if gain is None or gain.p is None else "paired t" if gain.paired else "Welch"
        numbers: list[Any] = [v for values in (row.last, row.best) for v in _numbers(values)]
        numbers += [None] * 4 if gain is None else [gain.mean, gain.low, gain.high, gain.p]
        notes = "; ".join(comparison.notes[m - 1] for m in row.marks)
        about = [row.corrected_p, test, row.verdict, student["parameters"], student["macs"], notes]
        paths = " ".join(str(run.path) for run in row.runs)
        writer.writerow([row.label, len(row.last), " ".join(row.setting.runs), *numbers, *about, paths])
    return out.getvalue()


def score_words(values: Sequence[float]) -> str:
    """`93.06 ± 0.28`, `93.06` of one seed, `–` of none."""
    if not values:
        return "–"
    mean, std = mean_std(values)
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def gain_words(row: Row) -> str:
    return "" if row.gain is None else f"{row.gain.mean:+.2f}".replace("-", "−")


def interval_words(row: Row) -> str:
    if row.gain is None or row.gain.low is None:
        return ""
    return f"{row.gain.low:+.2f} … {row.gain.high:+.2f}".replace("-", "−")


def teacher_accuracy(run: Run) -> str:
    return f"{100 * run.metrics['teacher']['test']['accuracy']:.2f}"


def mean_seconds(row: Row) -> float | None:
    """Of the runs whose time is known: an older version has only the last part of those that were interrupted."""
    whole = [run.metrics["seconds"] for run in row.runs if not run.metrics.get("resumed")]
    return mean_std(whole)[0] if whole else None


def _numbers(values: Sequence[float]) -> list[Any]:
    return [*mean_std(values), " ".join(f"{v:.4f}" for v in values)] if values else [None, None, ""]
