"""Pictures of what `kd_lightning.evaluate` measured of the compared runs: reliability, and where errors differ."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from kd_lightning import runs
from kd_lightning.plots.style import COLORS, INK, WIDTH
from kd_lightning.report.comparison import Comparison, Row
from kd_lightning.report.curves import chosen
from kd_lightning.utils.statistics import mean_std

Tests = Mapping[str, Sequence[Mapping[str, Any]]]  # name → the `test` of each run's evaluation.json
_ORANGE, _BLUE, _FADE = (0.87, 0.48, 0.15), (0.23, 0.51, 0.77), np.linspace(0, 1, 128)
_SPREAD = ListedColormap(  # transparent at 0, so that it looks right on a light page and on a dark one
    [(*_ORANGE, alpha) for alpha in _FADE[::-1]] + [(*_BLUE, alpha) for alpha in _FADE]
)


def students(comparison: Comparison) -> Tests:
    """Of the last epoch, of the settings of which a run was evaluated."""
    found = {
        row.label: [e["student"]["last"]["test"] for e in _evaluations(row) if "last" in e["student"]]
        for row in chosen(comparison.rows)
    }
    return {label: tests for label, tests in found.items() if tests}


def teachers(comparison: Comparison) -> Tests:
    """Each teacher once."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in comparison.rows:
        for evaluation in _evaluations(row):
            if evaluation.get("teacher"):
                found.setdefault(f"teacher {evaluation['teacher']['name']}", [evaluation["teacher"]["test"]])
    return found


def reliability_figure(tests: Tests) -> Figure | None:
    """Accuracy against confidence in bins, all seeds together; on the diagonal a model knows what it knows."""
    tests = {name: [t for t in some if "reliability" in t] for name, some in tests.items()}
    if not any(tests.values()):
        return None
    figure = Figure(figsize=(WIDTH, 4.4 + 0.22 * len(tests)), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], "--", color=COLORS[7], linewidth=1)
    for (name, some), color in zip(tests.items(), COLORS, strict=False):
        bins = [{k: np.asarray(v, float) for k, v in t["reliability"].items()} for t in some]
        count = np.sum([b["count"] for b in bins], axis=0)
        sums = [np.sum([b[k] * b["count"] for b in bins], axis=0) for k in ("confidence", "accuracy")]
        full = count >= 10  # fewer say nothing
        x, y = (total[full] / count[full] for total in sums)
        ece = mean_std([t["ece"] for t in some])[0]
        axes.plot(x, y, "o-", color=color, markersize=4, linewidth=1.4, label=f"{name}: ECE {ece:.3f}")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right")
    axes.grid(color=INK, alpha=0.1)
    figure.legend(loc="outside lower left")
    return figure


def confusion_differences(comparison: Comparison) -> dict[str, tuple[np.ndarray, Sequence[str]]]:
    """Setting → (teacher − student, classes) of the two most accurate of those evaluated."""
    rows = sorted(chosen(comparison.rows), key=lambda row: -mean_std(row.last)[0])
    found: dict[str, tuple[np.ndarray, Sequence[str]]] = {}
    for row in rows:
        pairs = [
            (e["teacher"]["test"]["confusion"], e["student"]["last"]["test"]["confusion"], e["data"]["classes"])
            for e in _evaluations(row)
            if e.get("teacher") and "confusion" in e["student"].get("last", {}).get("test", {})
        ]
        if pairs and len(found) < 2:
            difference = np.mean([_shares(teacher) - _shares(student) for teacher, student, _ in pairs], axis=0)
            found[row.label] = difference, pairs[0][2]
    return found


def confusion_figure(difference: np.ndarray, classes: Sequence[str]) -> Figure:
    """Shares of each true class (row), teacher − student, in points: blue where the teacher says it more often."""
    figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
    axes = figure.subplots()
    points = 100 * difference
    largest = np.abs(points).max() or 1.0
    axes.imshow(points, cmap=_SPREAD, vmin=-largest, vmax=largest, interpolation="nearest")
    if len(classes) <= 20:
        axes.set_xticks(range(len(classes)), classes, rotation=45, ha="right")
        axes.set_yticks(range(len(classes)), classes)
        for (i, j), value in np.ndenumerate(points):
            if abs(value) >= 0.5 and len(classes) <= 12:
                axes.text(j, i, f"{value:+.0f}", ha="center", va="center", fontsize=8)
    axes.set(xlabel="said", ylabel="true class")
    axes.tick_params(length=0)
    return figure


def _shares(confusion: Sequence[Sequence[int]]) -> np.ndarray:
    counts = np.asarray(confusion, float)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _evaluations(row: Row) -> list[dict[str, Any]]:
    return [values for run in row.runs if (values := runs.read_evaluation(run.path)) and values.get("schema") == 1]
