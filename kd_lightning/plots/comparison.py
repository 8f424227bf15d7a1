"""Pictures of settings side by side: values → Figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from kd_lightning.plots.style import COLORS, INK, VERDICT_COLORS, WIDTH, plain_numbers, short

_ORANGE, _BLUE, _FADE = (0.87, 0.48, 0.15), (0.23, 0.51, 0.77), np.linspace(0, 1, 128)
_SPREAD = ListedColormap(  # transparent at 0, so that it looks right on a light page and on a dark one
    [(*_ORANGE, alpha) for alpha in _FADE[::-1]] + [(*_BLUE, alpha) for alpha in _FADE]
)


@dataclass(frozen=True)
class Scores:
    """A line of `accuracy_figure`: a setting's scores, and its gain's interval over the baseline's mean."""

    label: str
    scores: Sequence[float]
    verdict: str = "–"
    baseline: float | None = None
    """Mean score of its baseline."""
    low: float | None = None
    high: float | None = None
    """Interval of the gain; None where there is none."""


def accuracy_figure(lines: Sequence[Scores], label: str = "test accuracy, %") -> Figure:
    """Draw a dot for each seed, the mean as a stroke, and the gain's interval as a band right or left of the baseline.

    An arrow head marks an interval, or a setting, that goes on beyond the axis.
    """
    labels = [fill(line.label, 26, break_long_words=False) for line in lines]
    height = max(label.count("\n") for label in labels) + 1
    figure = Figure(figsize=(WIDTH, 0.9 + (0.2 + 0.17 * height) * len(lines)), layout="constrained")
    axes = figure.subplots()
    left, right = _range([line.scores for line in lines])
    for y, line in enumerate(lines):
        color, mean = VERDICT_COLORS.get(line.verdict, COLORS[7]), float(np.mean(line.scores))
        if line.baseline is not None:
            axes.plot([line.baseline] * 2, [y - 0.5, y + 0.5], "--", color=COLORS[7], linewidth=1)
        if mean < left:
            axes.text(left, y, f" ← {mean:.1f}", color=color, va="center")
            continue
        if line.baseline is not None and line.low is not None and line.high is not None:
            ends = [line.baseline + line.low, line.baseline + line.high]
            shown = np.clip(ends, left, right)
            axes.plot(shown, [y, y], color=color, linewidth=6, alpha=0.3, solid_capstyle="butt")
            for end, edge, marker in ((ends[0], left, "<"), (ends[1], right, ">")):
                if (end < edge) if marker == "<" else (end > edge):
                    axes.plot([edge], [y], marker, color=color, markersize=8, markeredgewidth=0, clip_on=False)
        axes.plot([mean, mean], [y - 0.25, y + 0.25], color=color, linewidth=2.5)
        axes.plot(
            line.scores, np.full(len(line.scores), y), "o", color=color, markersize=5, markeredgewidth=0, alpha=0.8
        )
    axes.set_xlim(left, right)
    axes.locator_params(axis="x", nbins=8, steps=[1, 2, 5, 10])  # quarters of a point need long numbers
    axes.set_yticks(range(len(lines)), labels)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_xlabel(label)
    axes.tick_params(axis="y", length=0, pad=8)  # room for an arrow head
    axes.spines["left"].set_visible(False)
    return figure


def _range(scores: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return the axis limits: from the seeds, without settings that failed, which would squeeze the others."""
    means = [float(np.mean(values)) for values in scores]
    first, third = np.quantile(means, [0.25, 0.75])
    usual = [v for v, mean in zip(scores, means, strict=True) if mean >= first - 5 * max(third - first, 0.5)]
    seen = [value for values in usual for value in values]
    margin = 0.2 * (max(seen) - min(seen)) or 0.5
    return min(seen) - margin, max(seen) + margin


def grid_figure(cells: Mapping[tuple[float, float], float], title: str) -> Figure:
    """Draw temperature × alpha as a heat map; the best cell has a frame.

    Args:
        cells: (temperature, alpha) → value in percent.
        title: Name of the value.
    """
    temperatures, alphas = (sorted({key[i] for key in cells}) for i in (0, 1))
    values = np.full((len(alphas), len(temperatures)), np.nan)
    for (temperature, alpha), value in cells.items():
        values[alphas.index(alpha), temperatures.index(temperature)] = value
    figure = Figure(figsize=(WIDTH, 1.2 + 0.45 * len(alphas)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, origin="lower", aspect="auto", interpolation="nearest", cmap="viridis")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            r, g, b, _ = image.cmap(image.norm(value))
            color = "#000000" if 0.3 * r + 0.6 * g + 0.1 * b > 0.5 else "#ffffff"
            axes.text(j, i, f"{value:.2f}", ha="center", va="center", color=color)
    i, j = np.unravel_index(np.nanargmax(values), values.shape)
    frame: Any = {"fill": False, "edgecolor": "#000000", "linewidth": 2.5, "clip_on": False}
    axes.add_patch(_rectangle((float(j) - 0.5, float(i) - 0.5), **frame))
    axes.set_xticks(range(len(temperatures)), [f"{t:g}" for t in temperatures])
    axes.set_yticks(range(len(alphas)), [f"{a:g}" for a in alphas])
    axes.set(xlabel="temperature", ylabel="alpha")
    axes.set_title(title)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _rectangle(corner: tuple[float, float], **how: Any) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, 1, 1, **how)


def curves_figure(
    curves: Mapping[str, Sequence[Mapping[str, Mapping[int, float]]]], panels: Sequence[tuple[str, str, float]]
) -> Figure | None:
    """Draw the mean over seeds, between the lowest and the highest; None if no run has a curve.

    Args:
        curves: Label → for each run: tag → epoch → value.
        panels: (tag, axis label, factor) from top to bottom.
    """
    panels = [panel for panel in panels if any(panel[0] in run for runs in curves.values() for run in runs)]
    if not panels:
        return None
    figure = Figure(figsize=(WIDTH, 2.7 * len(panels) + 0.22 * len(curves)), layout="constrained")
    drawn: dict[str, Any] = {}  # name → line; not each panel has each setting
    for axes, (tag, title, factor) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        for (label, runs), color in zip(curves.items(), COLORS, strict=False):
            some = [run[tag] for run in runs if tag in run]
            epochs = sorted(set.intersection(*(set(run) for run in some))) if some else []
            if not epochs:
                continue
            values = factor * np.array([[run[epoch] for epoch in epochs] for run in some])
            name, marker = fill(label, 48, break_long_words=False), "o" if len(epochs) == 1 else None
            drawn[name] = axes.plot(epochs, values.mean(0), color=color, linewidth=1.6, label=name, marker=marker)[0]
            axes.fill_between(epochs, values.min(0), values.max(0), color=color, alpha=0.18, linewidth=0)
        axes.set(xlabel="epoch", ylabel=title)
        axes.grid(color=INK, alpha=0.1)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower left")
    return figure


def cost_figure(panels: Mapping[str, Sequence[tuple[float, float, bool]]]) -> Figure:
    """Draw accuracy against cost; no model is both cheaper and more accurate than those on the line.

    Args:
        panels: Axis label → (cost, accuracy in percent, whether it is a teacher).
    """
    figure = Figure(figsize=(WIDTH, 2.6 * len(panels)), layout="constrained")
    for axes, (title, points) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        front = _front([(x, y) for x, y, _ in points])
        axes.plot(*zip(*front, strict=True), color=COLORS[7], linewidth=1, drawstyle="steps-post")
        for is_teacher, label, color, marker in ((False, "student", COLORS[0], "o"), (True, "teacher", COLORS[1], "D")):
            some = [(x, y) for x, y, teaches in points if teaches == is_teacher]
            if some:
                axes.plot(*zip(*some, strict=True), marker, color=color, label=label, markeredgewidth=0)
        axes.set(xlabel=title, ylabel="test accuracy, %")
        if max(x for x, _, _ in points) > 3 * min(x for x, _, _ in points):  # else hardly a number would be on it
            axes.set_xscale("log")
            plain_numbers(axes.xaxis)
        axes.grid(color=INK, alpha=0.1)
        axes.legend()
    return figure


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    front: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or y > front[-1][1]:
            front.append((x, y))
    return front


def reliability_figure(tests: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure | None:
    """Draw accuracy against confidence in bins, all seeds together; None if no test has bins.

    Args:
        tests: Name → `test` of each run's evaluation.json.
    """
    tests = {name: known for name, some in tests.items() if (known := [t for t in some if "reliability" in t])}
    if not tests:
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
        ece = float(np.mean([t["ece"] for t in some]))
        axes.plot(x, y, "o-", color=color, markersize=4, linewidth=1.4, label=f"{name}: ECE {ece:.3f}")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="share that is right")
    axes.grid(color=INK, alpha=0.1)
    figure.legend(loc="outside lower left")
    return figure


def difference_figure(difference: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw teacher − student as shares of each true class, in points: blue where the teacher says it more often.

    Args:
        difference: Differences of shares, [true class, said class].
        classes: Names.
    """
    figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
    axes = figure.subplots()
    points = 100 * difference
    largest = np.abs(points).max() or 1.0
    axes.imshow(points, cmap=_SPREAD, vmin=-largest, vmax=largest, interpolation="nearest")
    if len(classes) <= 20:
        names = [short(name) for name in classes]
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
        axes.set_yticks(range(len(names)), names)
        for (i, j), value in np.ndenumerate(points):
            if abs(value) >= 0.5 and len(classes) <= 12:
                axes.text(j, i, f"{value:+.0f}", ha="center", va="center", fontsize=8)
    axes.set(xlabel="said", ylabel="true class")
    axes.tick_params(length=0)
    return figure
