"""Pictures of a comparison: accuracy by setting, a grid of temperature and alpha, accuracy against cost."""

from collections.abc import Callable, Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from kd_lightning import runs
from kd_lightning.plots.style import COLORS, INK, WIDTH
from kd_lightning.report.comparison import Comparison, Row
from kd_lightning.utils.statistics import interval, mean_std

_GRID = ("loss.temperature", "loss.alpha")
MAX_ROWS = 60


def accuracy_figure(comparison: Comparison) -> Figure:
    """A line a setting: a dot for each seed, the mean and its 95 % interval, and the mean of its baseline dashed."""
    rows = comparison.rows[:MAX_ROWS]
    labels = [fill(row.label, 26, break_long_words=False) for row in rows]
    lines = max(label.count("\n") for label in labels) + 1
    figure = Figure(figsize=(WIDTH, 0.9 + (0.2 + 0.17 * lines) * len(rows)), layout="constrained")
    axes = figure.subplots()
    baselines = {row.setting.budget: mean_std(row.last)[0] for row in comparison.rows if row.setting.is_baseline}
    low, high = _range(rows)
    for y, row in enumerate(rows):
        color = COLORS[7] if row.setting.is_baseline else COLORS[0]
        mean, bounds = mean_std(row.last)[0], interval(row.last)
        if row.setting.budget in baselines:
            axes.plot([baselines[row.setting.budget]] * 2, [y - 0.5, y + 0.5], "--", color=COLORS[7], linewidth=1)
        if mean < low:
            axes.text(low, y, f" ← {mean:.1f}", color=color, va="center")
            continue
        if bounds:
            axes.plot(bounds, [y, y], color=color, linewidth=5, alpha=0.35, solid_capstyle="butt")
        axes.plot([mean, mean], [y - 0.22, y + 0.22], color=color, linewidth=2.5)
        axes.plot(row.last, np.full(len(row.last), y), "o", color=color, markersize=5, markeredgewidth=0, alpha=0.8)
    axes.set_xlim(low, high)
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("test accuracy of the last epoch, %")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure


def _range(rows: Sequence[Row]) -> tuple[float, float]:
    """Of the seeds, not of intervals, which may reach from 0 to 100; settings that failed would squeeze the others."""
    means = [mean_std(row.last)[0] for row in rows]
    first, third = np.quantile(means, [0.25, 0.75])
    usual = [row for row, mean in zip(rows, means, strict=True) if mean >= first - 5 * max(third - first, 0.5)]
    seen = [value for row in usual for value in row.last]
    margin = 0.15 * (max(seen) - min(seen)) or 0.5
    return min(seen) - margin, max(seen) + margin


def grids(comparison: Comparison) -> dict[str, list[Row]]:
    """What else the rows have in common → rows, for each grid with several temperatures and several alphas."""
    found: dict[str, list[Row]] = {}
    for row in comparison.rows:
        if all(isinstance(row.setting.values.get(key), (int, float)) for key in _GRID):
            words = [w for w in row.label.split() if not w.startswith(("temperature=", "alpha="))]
            found.setdefault(" ".join(words), []).append(row)
    return {
        k: rows for k, rows in found.items() if all(len({r.setting.values[key] for r in rows}) > 1 for key in _GRID)
    }


def grid_figure(rows: Sequence[Row]) -> Figure:
    """Temperature × alpha: the gain in points where all rows have one, else the accuracy in percent."""
    gains = all(row.gain for row in rows)
    ts, alphas = (sorted({row.setting.values[key] for row in rows}) for key in _GRID)
    values = np.full((len(alphas), len(ts)), np.nan)
    for row in rows:
        where = alphas.index(row.setting.values["loss.alpha"]), ts.index(row.setting.values["loss.temperature"])
        values[where] = row.gain.mean if gains and row.gain else mean_std(row.last)[0]
    figure = Figure(figsize=(WIDTH, 1.2 + 0.45 * len(alphas)), layout="constrained")
    axes = figure.subplots()
    largest = np.nanmax(np.abs(values)) or 1.0
    how = {"cmap": "RdBu", "vmin": -largest, "vmax": largest} if gains else {"cmap": "viridis"}
    image = axes.imshow(values, origin="lower", aspect="auto", interpolation="nearest", **how)
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            r, g, b, _ = image.cmap(image.norm(value))
            color = "#000000" if 0.3 * r + 0.6 * g + 0.1 * b > 0.5 else "#ffffff"
            axes.text(j, i, f"{value:+.2f}" if gains else f"{value:.2f}", ha="center", va="center", color=color)
    axes.set_xticks(range(len(ts)), [f"{t:g}" for t in ts])
    axes.set_yticks(range(len(alphas)), [f"{a:g}" for a in alphas])
    axes.set(xlabel="temperature", ylabel="alpha")
    axes.set_title("gain over plain training, points" if gains else "test accuracy of the last epoch, %")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def cost_figure(comparison: Comparison) -> Figure | None:
    """Accuracy against parameters, multiply-accumulates and, where measured, latency; no model beats the line's."""
    panels: list[tuple[str, Callable[[Any], float | None], Callable[[Any], float | None]]] = [
        ("parameters, million", lambda r: r.metrics["student"]["parameters"] / 1e6, _of_teacher("parameters")),
        ("million MACs an image", lambda r: r.metrics["student"]["macs"] / 1e6, _of_teacher("macs")),
        ("milliseconds an image, batch 1", lambda r: _latency(r, "student"), lambda r: _latency(r, "teacher")),
    ]
    drawn = []
    for title, student, teacher in panels:
        points = [(student(row.runs[0]), mean_std(row.last)[0], False) for row in comparison.rows]
        points += [
            (teacher(r), 100 * r.metrics["teacher"]["test"]["accuracy"], True) for r in comparison.teachers.values()
        ]
        known = [(x, y, is_teacher) for x, y, is_teacher in points if x is not None]
        if len({x for x, _, _ in known}) > 1:
            drawn.append((title, known))
    if not drawn:
        return None
    figure = Figure(figsize=(WIDTH, 2.6 * len(drawn)), layout="constrained")
    for axes, (title, known) in zip(figure.subplots(len(drawn), squeeze=False)[:, 0], drawn, strict=True):
        front = _front([(x, y) for x, y, _ in known])
        axes.plot(*zip(*front, strict=True), color=COLORS[7], linewidth=1, drawstyle="steps-post")
        for is_teacher, label, color, marker in ((False, "student", COLORS[0], "o"), (True, "teacher", COLORS[1], "D")):
            some = [(x, y) for x, y, teaches in known if teaches == is_teacher]
            if some:
                axes.plot(*zip(*some, strict=True), marker, color=color, label=label, markeredgewidth=0)
        axes.set(xlabel=title, ylabel="test accuracy, %")
        if max(x for x, _, _ in known) > 3 * min(x for x, _, _ in known):  # else it would have hardly a number on it
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
            axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else "")
        axes.grid(color=INK, alpha=0.1)
        axes.legend()
    return figure


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points than which none is both cheaper and more accurate."""
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def _of_teacher(name: str) -> Callable[[Any], float | None]:
    return lambda run: run.metrics["teacher"][name] / 1e6


def _latency(run: Any, model: str) -> float | None:
    values = (runs.read_evaluation(run.path) or {}).get(model) or {}
    median: float | None = values.get("latency", {}).get("1", {}).get("median_ms")
    return median
