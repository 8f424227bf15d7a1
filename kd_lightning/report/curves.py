"""Learning curves of settings, out of the TensorBoard events of their runs."""

import logging
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from kd_lightning.plots.style import COLORS, INK, WIDTH
from kd_lightning.report.comparison import Comparison, Row
from kd_lightning.utils.statistics import mean_std

LINES = 8
_PANELS = (("val/accuracy", "validation accuracy, %", 100.0), ("train/ce", "cross-entropy in training, nats", 1.0))


def read_curves(path: Path, tags: Sequence[str]) -> dict[str, dict[int, float]]:
    """Tag → epoch (from 1) → value, of the tags that the run in `path` has logged."""
    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # Hydra would print its every file
    events = EventAccumulator(str(path), size_guidance={"scalars": 0, "images": 1, "histograms": 1})
    events.Reload()
    there = events.Tags()["scalars"]
    if "epoch" not in there:
        return {}
    epochs = {e.step: int(e.value) + 1 for e in events.Scalars("epoch")}
    curves: dict[str, dict[int, float]] = {}
    for tag in tags:
        if tag not in there:
            continue
        curve = curves[tag] = {}
        for event in events.Scalars(tag):
            # training is logged after the step that validation is logged at
            epoch = epochs.get(event.step - tag.startswith("train/"))
            if epoch is not None and (epoch not in curve or tag.startswith("train/")):
                curve[epoch] = event.value  # of training the epoch's last; of validation not that of the final tests
    return curves


def curves_figure(comparison: Comparison) -> Figure | None:
    """Mean over seeds, between the lowest and the highest; of many settings those that are `chosen`."""
    rows = chosen(comparison.rows)
    tags = [tag for tag, _, _ in _PANELS]
    curves = [[read_curves(run.path, tags) for run in row.runs] for row in rows]
    panels = [panel for panel in _PANELS if any(panel[0] in run for runs in curves for run in runs)]
    if not panels:
        return None
    figure = Figure(figsize=(WIDTH, 2.7 * len(panels) + 0.22 * len(rows)), layout="constrained")
    for axes, (tag, title, factor) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        for row, runs, color in zip(rows, curves, COLORS, strict=False):
            some = [run[tag] for run in runs if tag in run]
            epochs = sorted(set.intersection(*(set(run) for run in some))) if some else []
            if not epochs:
                continue
            values = factor * np.array([[run[epoch] for epoch in epochs] for run in some])
            axes.plot(
                epochs, values.mean(0), color=color, linewidth=1.6, label=fill(row.label, 48, break_long_words=False)
            )
            axes.fill_between(epochs, values.min(0), values.max(0), color=color, alpha=0.18, linewidth=0)
        axes.set(xlabel="epoch", ylabel=title)
        axes.grid(color=INK, alpha=0.1)
        axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left")
    return figure


def chosen(rows: Sequence[Row]) -> list[Row]:
    """All rows; of many, the baselines and the most accurate of the others."""
    ranked = sorted(rows, key=lambda row: (not row.setting.is_baseline, -mean_std(row.last)[0]))[:LINES]
    return [row for row in rows if row in ranked]
