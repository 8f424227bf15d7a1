"""The table of a comparison for the terminal, as Markdown and as CSV."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kd_lightning.report.comparison import Comparison, Result, seeds_words
from kd_lightning.report.words import caption, findings, interval_words, p_words, score_words, signed
from kd_lightning.runs.directory import Run
from kd_lightning.utils import tables
from kd_lightning.utils.names import task_name
from kd_lightning.utils.statistics import mean_std
from kd_lightning.utils.tables import Column

if TYPE_CHECKING:
    from rich.console import Group

COLUMNS = (
    Column("setting", "setting"),
    Column("gain", "gain, points", signed),
    Column("interval", "95 % interval", str, "right"),
    Column("verdict", "verdict"),
    Column("test", "test, %", score_words),
    Column("validation", "validation, %", score_words),
    Column("n", "n", "d"),
    Column("p", "p (corrected)", p_words),
    Column("agreement", "agreement, %", score_words),
    Column("seconds", "seconds", ".0f"),
)
"""Columns for people; `values` gives their rows."""


def columns_of(comparison: Comparison) -> list[Column]:
    """Return the columns: those of each task beside `COLUMNS`, if there are several."""
    at = 1 + next(i for i, column in enumerate(COLUMNS) if column.key == "validation")
    more = []
    for task in comparison.tasks:
        more += [
            Column(task_name(task, "test"), f"{task}, test, %", score_words),
            Column(task_name(task, "gain"), f"{task}, gain", str, "right"),
        ]
    if not more:
        return list(COLUMNS)
    means = {"gain": "gain of the mean, points", "test": "mean of the tasks, test, %", "validation": "validation, %"}
    named = [replace(column, header=means.get(column.key, column.header)) for column in COLUMNS]
    return [*named[:at], *more, *named[at:]]


def _of_tasks(comparison: Comparison, result: Result) -> dict[str, Any]:
    """Return the values of a setting's columns by task."""
    found: dict[str, Any] = {}
    for task in comparison.tasks:
        gain = result.task_gains.get(task)
        found[task_name(task, "test")] = list(result.task_scores(task).values()) or None
        found[task_name(task, "gain")] = None if gain is None else f"{signed(gain.mean)} [{interval_words(gain)}]"
    return found


def values(result: Result) -> dict[str, Any]:
    """Return the values of a row of `COLUMNS`."""
    gain, runs = result.gain, result.runs
    return {
        "setting": result.label + "".join(f" [{m}]" for m in result.marks),
        "gain": None if gain is None else gain.mean,
        "interval": None if gain is None else interval_words(gain),
        "verdict": result.verdict,
        "more": "" if gain is None else seeds_words(gain),
        "test": result.scores or None,
        "validation": list(result.validation.values()) or None,
        "n": len(result.test),
        "p": None if gain is None else gain.p,
        "agreement": [100 * v for v in result.values("agreement")] or None,
        "seconds": mean_std([run.metrics["seconds"] for run in runs])[0] if runs else None,
    }


def rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return all rows of `columns_of`: the teachers, then the settings."""
    found: list[dict[str, Any]] = [
        {"setting": f"teacher {name}", "test": [100 * run.metrics["teacher"]["test"]["accuracy"]]}
        | _of_teacher(comparison, run)
        for name, run in comparison.teachers.items()
    ]
    return found + [values(result) | _of_tasks(comparison, result) for result in comparison.results]


def _of_teacher(comparison: Comparison, run: Run) -> dict[str, Any]:
    scores, alone = run.metrics["teacher"]["test"], run.config.data.get("task")
    keys = {task: "accuracy" if task == alone else task_name(task, "accuracy") for task in comparison.tasks}
    return {task_name(task, "test"): [100 * scores[key]] for task, key in keys.items() if key in scores}


def terminal_table(comparison: Comparison) -> "Group":
    """Return the findings, the table, which fits 80 columns, and the notes for the terminal."""
    from rich.console import Group
    from rich.text import Text

    few: tuple[Column, ...] = (
        Column("setting", "setting"),
        Column("told", "gain", str, "right"),
        Column("verdict", "verdict"),
        Column("test", "test, %", score_words),
        Column("validation", "val, %", lambda v: f"{mean_std(v)[0]:.2f}"),
        *(Column(task_name(task, "test"), f"{task}, %", score_words) for task in comparison.tasks),
        Column("n", "n", "d"),
    )
    if comparison.tasks:  # in the 80 columns there is no room for their means too
        few = tuple(column for column in few if column.key not in ("test", "validation"))
    lines = []
    for row in rows(comparison):
        gain = [] if row.get("gain") is None else [signed(row["gain"]), (row["interval"] or "").replace(" ", "")]
        verdict = [word for word in (row.get("verdict"), row.get("more")) if word]
        lines.append({**row, "told": "\n".join(filter(None, gain)), "verdict": "\n".join(verdict)})
    table = tables.terminal(few, lines)
    notes = [f"[{i}] {note}" for i, note in enumerate(comparison.notes, 1)]
    parts: list[Any] = [
        Text("\n".join(findings(comparison))),
        "",
        table,
        "",
        Text("\n".join([*notes, caption(comparison)])),
    ]
    return Group(*parts)


def markdown(comparison: Comparison, title: str, told: Sequence[tuple[str, str]] = ()) -> str:
    """Return title, findings, table, caption, notes and commands as Markdown."""
    body = [_for_markdown(row) for row in rows(comparison)]
    parts = [f"# {title}", *findings(comparison), tables.markdown(columns_of(comparison), body), caption(comparison)]
    parts += ["\n".join(f"{i}. {note}" for i, note in enumerate(comparison.notes, 1))] if comparison.notes else []
    parts += [f"To {purpose}:\n\n```bash\n{command}\n```" for purpose, command in told]
    return "\n\n".join(parts) + "\n"


def _for_markdown(row: Mapping[str, Any]) -> dict[str, Any]:
    label, marks = re.fullmatch(r"(.*?)((?: \[\d+\])*)", row["setting"], re.DOTALL).groups()  # type: ignore[union-attr]
    setting = label if label.startswith("teacher ") else f"`{label}`"
    verdict = "; ".join(word for word in (row.get("verdict"), row.get("more")) if word)
    return {**row, "setting": setting + marks, "verdict": verdict}


def csv_text(comparison: Comparison) -> str:
    """Return one line for each setting, with all numbers in full."""
    keys = ["setting", "n", "select", "gain", "gain_low", "gain_high", "p", "tested_by", "p_sign_flip", "verdict"]
    keys += ["more_seeds", "seeds", *(f"{name}_{what}" for name in ("test", "validation") for what in _WHAT)]
    keys += [task_name(task, what) for task in comparison.tasks for what in _OF_TASK]
    keys += ["parameters", "macs", "notes", "runs"]
    return tables.csv_text([Column(key, key) for key in keys], [_csv_row(comparison, r) for r in comparison.results])


_WHAT = ("mean", "std", "values")
_OF_TASK = ("test_mean", "test_std", "test_values", "gain", "gain_low", "gain_high")


def _csv_row(comparison: Comparison, result: Result) -> dict[str, Any]:
    row: dict[str, Any] = {"setting": result.label, "n": len(result.test), "verdict": result.verdict}
    row |= {"select": result.selected, "seeds": list(result.test), "runs": [str(run.path) for run in result.runs]}
    row["notes"] = "; ".join(comparison.notes[m - 1] for m in result.marks)
    for name, scores in (("test", result.scores), ("validation", list(result.validation.values()))):
        if scores:
            numbers = (*mean_std(scores), [f"{v:.4f}" for v in scores])
            row |= {f"{name}_{what}": number for what, number in zip(_WHAT, numbers, strict=True)}
    for task in comparison.tasks:
        if scores := list(result.task_scores(task).values()):
            told = [*mean_std(scores), [f"{v:.4f}" for v in scores]]
            if own := result.task_gains.get(task):
                told += [own.mean, own.low, own.high]
            row |= {task_name(task, what): value for what, value in zip(_OF_TASK, told, strict=False)}
    if gain := result.gain:
        row |= {"gain": gain.mean, "gain_low": gain.low, "gain_high": gain.high, "p": gain.p, "tested_by": gain.test}
        row |= {"p_sign_flip": gain.sign_flip_p, "more_seeds": seeds_words(gain).partition(" ")[0]}
    if result.runs:
        row |= {key: result.runs[0].metrics["student"][key] for key in ("parameters", "macs")}
    return row
