"""Figures of an evaluation: reliability, classes, confusion, corruptions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from kd_lightning.plots.style import plain_numbers, short
from kd_lightning.utils.files import write_whole

STUDENT, TEACHER = "#1f77b4", "#ff7f0e"
COLORS = {"student": STUDENT, "teacher": TEACHER}
"""Model → its color."""


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    write_whole(path, lambda partial: figure.savefig(partial, format="png", dpi=110))


def reliability_figure(scores: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Draw accuracy over confidence of each model (row), before and after temperature scaling, with the counts below.

    Args:
        scores: Model → `ece`, `reliability` (the bins) and, where a temperature was fitted, `calibrated`: `temperature`
            and both again.
    """
    columns = 2 if any("calibrated" in test for test in scores.values()) else 1
    figure = Figure(figsize=(4.5 * columns, 4.3 * len(scores)), layout="constrained")
    grid = figure.subplots(2 * len(scores), columns, height_ratios=[3, 1] * len(scores), sharex=True, squeeze=False)
    for row, (name, test) in enumerate(scores.items()):
        states = [("as trained", test)]
        if "calibrated" in test:
            states.append((f"calibrated, T = {test['calibrated']['temperature']:.2f}", test["calibrated"]))
        for column in range(columns):
            top, below = grid[2 * row][column], grid[2 * row + 1][column]
            if column < len(states):
                _reliability(top, below, f"{name}, {states[column][0]}", states[column][1], COLORS.get(name, STUDENT))
            else:
                top.axis("off")
                below.axis("off")
    marks = [Patch(color="gray", label="accuracy"), Patch(color="gray", alpha=0.3, label="of fewer than 10 samples")]
    confidence = Line2D([], [], linestyle="", marker="_", color="black", markersize=10, label="mean confidence")
    figure.legend(
        handles=[*marks, confidence], loc="outside upper center", ncols=3 if columns > 1 else 1, frameon=False
    )
    return figure


def _reliability(top: Any, below: Any, title: str, scores: Mapping[str, Any], color: str) -> None:
    bins = {key: np.array(values) for key, values in scores["reliability"].items()}
    n = len(bins["count"])
    centers, full = (np.arange(n) + 0.5) / n, bins["count"] > 0
    top.plot([0, 1], [0, 1], color="gray", linestyle="--", linewidth=1)
    for some, alpha in ((bins["count"] >= 10, 1.0), (full & (bins["count"] < 10), 0.3)):
        top.bar(centers[some], bins["accuracy"][some], 0.9 / n, color=color, alpha=alpha)
    top.plot(bins["confidence"][full], bins["confidence"][full], "_", color="black", markersize=10)
    top.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    top.set_title(f"{title}: ECE {scores['ece']:.3f}", fontsize=10)
    below.bar(centers, np.maximum(bins["count"], 0.1), 0.9 / n, color="gray")
    below.set(yscale="log", ylim=(0.5, None), xlabel="confidence", ylabel="samples")
    plain_numbers(below.yaxis, between="")


def per_class_figure(per_class: Mapping[str, Sequence[float | None]], classes: Sequence[str]) -> Figure:
    """Draw the accuracy of each class, the student's worst first; of more than 40 classes the 40 worst."""
    student = per_class["student"]
    tested = [c for c in range(len(classes)) if student[c] is not None]
    order = sorted(tested, key=lambda c: student[c] or 0.0)[:40]
    figure = Figure(figsize=(7, 1.4 + (0.26 + 0.06 * len(per_class)) * len(order)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(per_class)
    for k, (name, values) in enumerate(per_class.items()):
        where = np.arange(len(order)) + (k - (len(per_class) - 1) / 2) * height
        shares = [100 * (values[c] or 0) for c in order]
        axes.barh(where, shares, height, label=name, color=COLORS[name])
    axes.set_yticks(range(len(order)), [short(classes[c]) for c in order])
    axes.invert_yaxis()
    low = min(100 * (values[c] or 0) for values in per_class.values() for c in order)
    left = 0.0 if low < 50 else max(0.0, 10 * np.floor(low / 10 - 1))
    axes.set(xlim=(left, 100), xlabel="accuracy on test, %" + (f" (axis starts at {left:.0f})" if left else ""))
    shown = "" if len(order) == len(classes) else f", {len(order)} of {len(classes)}"
    if len(tested) < len(classes):
        shown += f" ({len(classes) - len(tested)} without test samples)"
    axes.set_title(f"Classes, the student's worst first{shown}")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    return figure


def confusion_figure(confusion: Mapping[str, Sequence[Sequence[int]]], classes: Sequence[str]) -> Figure:
    """Draw the share of each true class (row) that the student calls each class, and teacher − student in points."""
    shares = {name: 100 * _rows(np.array(counts)) for name, counts in confusion.items()}
    names = [short(name) for name in classes]
    size = min(3.2 + 0.34 * len(names) + 0.08 * max(0, *(len(name) - 8 for name in names)), 11)  # inches
    figure = Figure(figsize=(size * len(shares) + 0.8, size), layout="constrained")
    panels = figure.subplots(1, len(shares), squeeze=False)[0]
    _matrix(figure, panels[0], shares["student"], names, "Student, % of the true class", "Blues", (0, 100))
    if "teacher" in shares:
        difference = shares["teacher"] - shares["student"]
        most = max(1.0, float(np.abs(difference).max()))
        title = "Teacher − student, points"
        _matrix(figure, panels[1], difference, names, title, "RdBu", (-most, most))
    return figure


def _rows(counts: Any) -> Any:
    return counts / np.maximum(counts.sum(1, keepdims=True), 1)


def _matrix(
    figure: Figure, axes: Any, values: Any, classes: Sequence[str], title: str, colors: str, limits: tuple[float, float]
) -> None:
    image = axes.imshow(values, cmap=colors, vmin=limits[0], vmax=limits[1])
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    figure.colorbar(image, ax=axes, shrink=0.75)
    if len(classes) <= 30:
        axes.set_xticks(range(len(classes)), classes, rotation=0 if max(map(len, classes)) < 3 else 60)
        axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= 12:
        signed, dark = limits[0] < 0, 0.6 * limits[1]
        for (i, j), value in np.ndenumerate(values):
            if abs(value) >= 0.5:
                color = "white" if abs(value) > dark else "black"
                axes.text(
                    j, i, f"{value:{'+' if signed else ''}.0f}", ha="center", va="center", fontsize=8, color=color
                )


def corruption_figure(
    robustness: Mapping[str, Mapping[str, Sequence[float]]],
    corruptions: Mapping[str, tuple[str, Sequence[float]]],
    images: int,
) -> Figure:
    """Draw the accuracy over the strength of each corruption, from the clean image on.

    Args:
        robustness: Model → corruption → accuracy at each strength, and `clean` → [accuracy].
        corruptions: Corruption → unit and strengths.
        images: Number of images.
    """
    figure = Figure(figsize=(12, 3.1), layout="constrained")
    panels = figure.subplots(1, len(corruptions), sharey=True)
    for axes, (kind, (unit, strengths)) in zip(panels, corruptions.items(), strict=True):
        for name, accuracies in robustness.items():
            points = [100 * a for a in (*accuracies["clean"], *accuracies[kind])]
            axes.plot(range(len(points)), points, "o-", color=COLORS[name], label=name, markersize=4)
        axes.set_xticks(range(1 + len(strengths)), ["clean", *(f"{s:g}" for s in strengths)])
        axes.set(title=kind, ylim=(0, 101), xlabel=unit)
        axes.grid(axis="y", alpha=0.3)
    panels[0].set_ylabel("accuracy, %")
    panels[0].legend(loc="lower left", frameon=False)
    figure.suptitle(f"Robustness on {images:,} test images", fontsize=11)
    return figure
