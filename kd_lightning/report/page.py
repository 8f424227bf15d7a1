"""The comparison as one HTML file that needs no network; light and dark, desktop and phone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kd_lightning import runs
from kd_lightning.report.commands import repeat_command
from kd_lightning.report.comparison import Comparison, Result
from kd_lightning.report.figures import figures
from kd_lightning.report.tables import columns_of, rows
from kd_lightning.report.words import caption, findings, score_words
from kd_lightning.utils.statistics import mean_std

_CLASSES = {"better": "better", "worse": "worse", "diverged": "worse", "too few seeds": "few"}


def page(comparison: Comparison, title: str, commands: Sequence[tuple[str, str]] = ()) -> str:
    """Return the whole document.

    Args:
        comparison: What is shown.
        title: Heading.
        commands: (purpose, command), shown below the findings.
    """
    from jinja2 import Environment, FileSystemLoader

    here = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(here), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("page.html").render(
        title=title,
        style=(here / "page.css").read_text(encoding="utf-8"),
        findings=findings(comparison),
        commands=commands,
        columns=[column for column in columns_of(comparison) if column.key != "interval"],
        lines=_lines(comparison),
        caption=caption(comparison),
        notes=comparison.notes,
        figures=list(figures(comparison)),
        settings=[_setting(result) for result in comparison.results],
    )


def _lines(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the table's lines: `kind`, `marks`, and for each column its text and the value that it is sorted by."""
    results: list[Result | None] = [None] * len(comparison.teachers) + list(comparison.results)
    lines = []
    for row, result in zip(rows(comparison), results, strict=True):
        if result is not None:
            row["setting"] = result.label
        cells = {
            column.key: {"text": column.text(row), "sort": _sort_key(row.get(column.key))}
            for column in columns_of(comparison)
        }
        cells["gain"]["below"] = row.get("interval") or ""
        cells["verdict"] |= {"kind": _CLASSES.get(row.get("verdict", ""), ""), "below": row.get("more") or ""}
        kind = "teacher" if result is None else "baseline" if result.setting.is_baseline else ""
        lines.append({"kind": kind, "marks": [] if result is None else result.marks, "cells": cells})
    return lines


def _sort_key(value: Any) -> Any:
    if isinstance(value, list):
        return mean_std(value)[0]
    return "" if value is None else value


def _setting(result: Result) -> dict[str, Any]:
    run = result.setting.first
    return {
        "label": result.label,
        "command": repeat_command(run),
        "config": (run.path / runs.CONFIG).read_text(encoding="utf-8"),
        "runs": [
            (seed, f"{score_words([result.test[seed]])} %", str(run.path)) for seed, run in result.setting.runs.items()
        ]
        + [(seed, "diverged", str(run.path)) for seed, run in result.setting.diverged.items()],
    }
