"""The pictures of a comparison: collects what `plots.comparison` draws."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from kd_lightning import runs
from kd_lightning.plots import comparison as plots
from kd_lightning.plots.style import COLORS, draw
from kd_lightning.report.comparison import Comparison, Result
from kd_lightning.report.curves import read_curves
from kd_lightning.runs.directory import Run
from kd_lightning.utils.statistics import mean_std

LINES = len(COLORS)
MAX_SETTINGS = 60
_GRID = ("loss.temperature", "loss.alpha")
_CURVES = (("val/accuracy", "validation accuracy, %", 100.0), ("train/ce", "cross-entropy in training, nats", 1.0))


def figures(comparison: Comparison) -> Iterator[dict[str, str]]:
    """Yield `title`, `svg` and `caption` of each picture that the runs have values for."""
    cut = f" The first {MAX_SETTINGS} settings." if len(comparison.results) > MAX_SETTINGS else ""
    few = f" {LINES} of the settings." if len(comparison.results) > LINES else ""
    yield _figure(
        "Accuracy by setting",
        draw("accuracy", plots.accuracy_figure, accuracy_lines(comparison)),
        "A dot is a seed, the stroke their mean. The band is the 95 % interval of the gain, drawn from the baseline "
        "(dashed): a setting is better if its band is right of it. An arrow head: it goes on beyond the axis." + cut,
    )
    for number, (name, results) in enumerate(grids(comparison).items()):
        cells, what = grid_cells(results)
        svg = draw(f"grid{number}", plots.grid_figure, cells, f"{what} accuracy, %")
        yield _figure(f"Temperature × alpha: {name}", svg, "Means over seeds; the best has a frame.")
    shown = chosen(comparison.results)
    curves = {r.label: [read_curves(run.path, [tag for tag, _, _ in _CURVES]) for run in r.runs] for r in shown}
    found = [
        _figure(
            "Learning curves",
            draw("curves", plots.curves_figure, curves, _CURVES),
            "Mean over seeds, between the lowest and the highest." + few,
        )
    ]
    if panels := cost_panels(comparison):
        words = "No model is both cheaper and more accurate than those on the line."
        found.append(_figure("Accuracy against cost", draw("cost", plots.cost_figure, panels), words))
    found.append(
        _figure(
            "Reliability",
            draw("reliability", plots.reliability_figure, {**_teachers(comparison), **_students(shown)}),
            "Below the diagonal a model is surer than right. Bins of fewer than 10 samples are left out." + few,
        )
    )
    for number, (label, values) in enumerate(_confusion_differences(shown).items()):
        svg = draw(f"confusion{number}", plots.difference_figure, *values)
        words = "Points of each true class; blue: the teacher says it more often, orange: the student."
        found.append(_figure(f"Teacher − student: {label}", svg, words))
    yield from (figure for figure in found if figure["svg"])


def _figure(title: str, svg: str, caption: str) -> dict[str, str]:
    return {"title": title, "svg": svg, "caption": caption}


def accuracy_lines(comparison: Comparison) -> list[plots.Scores]:
    """Return the lines of `accuracy_figure`."""
    lines = []
    for members in comparison.budgets():
        baseline = next((r.mean for r in members if r.setting.is_baseline and r.test), None)
        for result in members:
            if result.test:
                low, high = (result.gain.low, result.gain.high) if result.gain else (None, None)
                lines.append(plots.Scores(result.label, result.scores, result.verdict, baseline, low, high))
    return lines[:MAX_SETTINGS]


def grids(comparison: Comparison) -> dict[str, list[Result]]:
    """Return name → results, for each grid with several temperatures and several alphas."""
    found: dict[str, list[Result]] = {}
    for result in comparison.results:
        if result.test and all(isinstance(result.setting.values.get(key), (int, float)) for key in _GRID):
            words = [w for w in result.label.split() if not w.startswith(("temperature=", "alpha="))]
            found.setdefault(" ".join(words), []).append(result)
    return {
        name: results
        for name, results in found.items()
        if all(len({r.setting.values[key] for r in results}) > 1 for key in _GRID)
    }


def grid_cells(results: Sequence[Result]) -> tuple[dict[tuple[float, float], float], str]:
    """Return (temperature, alpha) → mean accuracy, and of which split: validation wherever all settings have it."""
    split = "validation" if all(result.validation for result in results) else "test"
    cells = {}
    for result in results:
        scores = list((result.validation if split == "validation" else result.test).values())
        temperature, alpha = (result.setting.values[key] for key in _GRID)
        cells[temperature, alpha] = mean_std(scores)[0]
    return cells, split


def cost_panels(comparison: Comparison) -> dict[str, list[tuple[float, float, bool]]]:
    """Return axis label → (cost, accuracy, whether it is a teacher), where costs differ."""
    panels: dict[str, list[tuple[float, float, bool]]] = {}
    students = [(result.runs[0], result.mean, "student") for result in comparison.results if result.runs]
    teachers = [(r, 100 * r.metrics["teacher"]["test"]["accuracy"], "teacher") for r in comparison.teachers.values()]
    for run, accuracy, model in students + teachers:
        costs = {
            "parameters, million": run.metrics[model]["parameters"] / 1e6,
            "million MACs a sample": run.metrics[model]["macs"] / 1e6,
            "milliseconds a sample, batch 1": _latency(run, model),
        }
        for title, cost in costs.items():
            if cost:  # an exported teacher tells no size
                panels.setdefault(title, []).append((cost, accuracy, model == "teacher"))
    return {title: points for title, points in panels.items() if len({x for x, _, _ in points}) > 1}


def chosen(results: Sequence[Result]) -> list[Result]:
    """Return the finished settings; of many, the baselines and the most accurate of the others."""
    finished = [result for result in results if result.test]
    ranked = sorted(finished, key=lambda r: (not r.setting.is_baseline, -r.mean))[:LINES]
    return [result for result in finished if result in ranked]


def _students(results: Sequence[Result]) -> dict[str, list[Mapping[str, Any]]]:
    found = {r.label: [_student(e)["test"] for e in _evaluations(r) if _student(e)] for r in results}
    return {label: tests for label, tests in found.items() if tests}


def _teachers(comparison: Comparison) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for result in comparison.results:
        for evaluation in _evaluations(result):
            if evaluation.get("teacher"):
                found.setdefault(f"teacher {evaluation['teacher']['name']}", [evaluation["teacher"]["test"]])
    return found


def _confusion_differences(results: Sequence[Result]) -> dict[str, tuple[np.ndarray, Sequence[str]]]:
    """Return setting → (teacher − student, classes) for the two most accurate of those evaluated."""
    found: dict[str, tuple[np.ndarray, Sequence[str]]] = {}
    for result in sorted(results, key=lambda result: -result.mean):
        pairs = [
            (e["teacher"]["test"]["confusion"], _student(e)["test"]["confusion"], e["data"]["classes"])
            for e in _evaluations(result)
            if e.get("teacher") and "confusion" in _student(e).get("test", {})
        ]
        if pairs and len(found) < 2:
            difference = np.mean([_shares(teacher) - _shares(student) for teacher, student, _ in pairs], axis=0)
            found[result.label] = difference, pairs[0][2]
    return found


def _shares(confusion: Sequence[Sequence[int]]) -> np.ndarray:
    counts = np.asarray(confusion, float)
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _evaluations(result: Result) -> list[dict[str, Any]]:
    return [values for run in result.runs if "select" in (values := _evaluation(run))]


def _evaluation(run: Run) -> dict[str, Any]:
    """Return the evaluation of a run's student as it is now on the run's own data; nothing if there is none."""
    values = runs.read_evaluation(run.path) or {}
    now = {key: run.metrics.get(key) for key in ("samples", "labels_fingerprint")}
    now["sha256"] = run.metrics["sha256"][runs.STUDENT]
    return values if all(value is None or values.get(key, value) == value for key, value in now.items()) else {}


def _student(evaluation: Mapping[str, Any]) -> Mapping[str, Any]:
    student: Mapping[str, Any] = evaluation["student"].get(evaluation["select"], {})
    return student


def _latency(run: Run, model: str) -> float | None:
    values = _evaluation(run).get(model) or {}
    median: float | None = values.get("latency", {}).get("1", {}).get("median_ms")
    return median
