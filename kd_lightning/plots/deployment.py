"""Picture of a deployment table."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from kd_lightning.plots.style import plain_numbers

COLORS = {"eager": "#1f77b4", "compiled": "#9467bd", "onnx": "#d62728", "pt2": "#2ca02c"}


def deployment_figure(rows: Sequence[Mapping[str, Any]], conditions: str) -> Figure:
    """Return accuracy over latency; the area of a point is the size of its file.

    Args:
        rows: `model`, `runtime`, `accuracy` in [0, 1], `median_ms` and `bytes` of each model in each runtime.
        conditions: Where it was measured.
    """
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.subplots()
    largest = max(row["bytes"] for row in rows)
    for runtime, color in COLORS.items():
        some = [row for row in rows if row["runtime"] == runtime]
        if some:
            where = [row["median_ms"] for row in some], [100 * row["accuracy"] for row in some]
            areas = [30 + 900 * row["bytes"] / largest for row in some]
            axes.scatter(*where, s=areas, color=color, alpha=0.55, edgecolor="black", linewidth=0.6, label=runtime)
    models = {name: i for i, name in enumerate(dict.fromkeys(row["model"] for row in rows), 1)}
    for row in rows:
        place = (row["median_ms"], 100 * row["accuracy"])
        axes.annotate(str(models[row["model"]]), place, ha="center", va="center", fontsize=8)
    axes.set(xscale="log", xlabel="latency of one sample, ms (log scale)", ylabel="accuracy on test, %")
    plain_numbers(axes.xaxis)
    axes.grid(alpha=0.3, which="both")
    legend = axes.legend(title="runtime", frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for handle in legend.legend_handles:
        handle.set_sizes([60])  # type: ignore[union-attr]
    names = "\n".join(f"{i}  {name}" for name, i in models.items())
    axes.text(1.02, 0.45, names, transform=axes.transAxes, va="top", fontsize=9)
    axes.margins(0.12)
    axes.set_title("Faster is left, better is up; the area is the size of the file", fontsize=10)
    figure.supxlabel(conditions, fontsize=8)
    return figure
