"""The comparison as one HTML file that needs no network and no script; light and dark, desktop and phone."""

import shlex
from collections.abc import Iterator
from html import escape
from pathlib import Path

from kd_lightning import runs
from kd_lightning.plots.style import draw
from kd_lightning.report import curves, evaluations, figures
from kd_lightning.report.comparison import Comparison, Row
from kd_lightning.report.tables import CAPTION, cells, findings, interval_words, score_words, teacher_accuracy

_COLUMNS = (
    "setting",
    "n",
    "last epoch, %",
    "best on validation, %",
    "gain, points",
    "p (Holm)",
    "verdict",
    "agreement, %",
    "seconds",
)
_CLASSES = {"better": "better", "worse": "worse", "too few seeds": "few"}


def page(comparison: Comparison, title: str) -> str:
    """The whole document."""
    style = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    drawn = "".join(_figure(name, svg, words) for name, svg, words in _figures(comparison) if svg)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title><style>{style}</style></head><body>
<h1>{escape(title)}</h1>
<p class="findings">{escape(findings(comparison))}</p>
{_table(comparison)}
<p class="soft">{escape(CAPTION)}</p>
{_notes(comparison)}
<h2>Pictures</h2><div class="figures">{drawn}</div>
<h2>Commands and configurations</h2>
<p class="soft">Each command repeats the setting's first run in a new folder; another seed: <code>seed=…</code>.</p>
{"".join(map(_details, comparison.rows))}
</body></html>
"""


def _table(comparison: Comparison) -> str:
    head = "".join(f'<th class="{_kind(column)}">{column}</th>' for column in _COLUMNS)
    body = [
        _row("teacher", [f"teacher {escape(name)}", "", teacher_accuracy(run), *[""] * 6])
        for name, run in comparison.teachers.items()
    ]
    for row in comparison.rows:
        text = [escape(cell) for cell in cells(row)]
        marks = "".join(f'<sup><a href="#note{m}">{m}</a></sup>' for m in row.marks)
        gain = text[4] + (f"<small>{escape(interval_words(row))}</small>" if interval_words(row) else "")
        verdict = f'<span class="{_CLASSES.get(row.verdict, "")}">{text[7]}</span>'
        kind = "baseline" if row.setting.is_baseline else ""
        body.append(_row(kind, [text[0] + marks, *text[1:4], gain, text[6], verdict, *text[8:]]))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _row(kind: str, cells: list[str]) -> str:
    data = (
        f'<td data-name="{name}" class="{_kind(name)}">{cell}</td>' for name, cell in zip(_COLUMNS, cells, strict=True)
    )
    return f'<tr class="{kind}">{"".join(data)}</tr>'


def _kind(column: str) -> str:
    return column if column in ("setting", "verdict") else "number"


def _notes(comparison: Comparison) -> str:
    notes = "".join(f'<li id="note{i}">{escape(note)}</li>' for i, note in enumerate(comparison.notes, 1))
    return f"<h2>Notes</h2><ol>{notes}</ol>" if notes else ""


def _figures(comparison: Comparison) -> Iterator[tuple[str, str, str]]:
    """Title, SVG (empty where the runs have nothing for it) and what is seen."""
    cut = f" The first {figures.MAX_ROWS} settings." if len(comparison.rows) > figures.MAX_ROWS else ""
    few = f" {curves.LINES} of the settings." if len(comparison.rows) > curves.LINES else ""
    yield (
        "Accuracy by setting",
        draw("accuracy", figures.accuracy_figure, comparison),
        "A dot is a seed, the stroke their mean, the band its 95 % interval; dashed: plain training at equal budget. "
        "An arrow: far below the others." + cut,
    )
    for number, (name, rows) in enumerate(figures.grids(comparison).items()):
        svg = draw(f"grid{number}", figures.grid_figure, rows)
        yield f"Temperature × alpha: {name}", svg, "Means over seeds."
    yield (
        "Learning curves",
        draw("curves", curves.curves_figure, comparison),
        "Mean over seeds, between the lowest and the highest." + few,
    )
    yield (
        "Accuracy against cost",
        draw("cost", figures.cost_figure, comparison),
        "No model is both cheaper and more accurate than those on the line.",
    )
    tests = {**evaluations.teachers(comparison), **evaluations.students(comparison)}
    yield (
        "Reliability",
        draw("reliability", evaluations.reliability_figure, tests),
        "Below the diagonal a model is surer than right. Bins of fewer than 10 images are left out." + few,
    )
    for number, (label, values) in enumerate(evaluations.confusion_differences(comparison).items()):
        svg = draw(f"confusion{number}", evaluations.confusion_figure, *values)
        yield (
            f"Teacher − student: {label}",
            svg,
            "Points of each true class; blue: the teacher says it more often, orange: the student.",
        )


def _figure(title: str, svg: str, words: str) -> str:
    return f"<figure><h3>{escape(title)}</h3>{svg}<figcaption>{escape(words)}</figcaption></figure>"


def repeat_command(row: Row) -> str:
    """Trains the row's first run again, in a new folder."""
    folder = row.runs[0].path.resolve()
    words = ["python", "-m", "kd_lightning.train", "--config-path", str(folder), "--config-name", runs.CONFIG]
    return shlex.join([*words, "hydra.output_subdir=null", "hydra.run.dir=outputs/train/again"])


def _details(row: Row) -> str:
    config = (row.runs[0].path / runs.CONFIG).read_text(encoding="utf-8")
    paths = "".join(
        f"<li>seed {escape(seed)}: {escape(score_words([100 * run.metrics['student']['last']['test']['accuracy']]))} % "
        f"· {escape(str(run.path))}</li>"
        for seed, run in row.setting.runs.items()
    )
    return (
        f"<details><summary>{escape(row.label)}</summary><pre class='wrap'>{escape(repeat_command(row))}</pre>"
        f"<ul class='soft'>{paths}</ul><pre>{escape(config)}</pre></details>"
    )
