"""The deployment table on the terminal, as CSV and as Markdown, and its picture."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict

from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from kd_lightning.deploy.measure import BATCH, Row

COLUMNS = ("model", "runtime", "acc %", "params", "MACs", "file", "peak", "ms", "p95", "img/s")
COLORS = {"eager": "#1f77b4", "compiled": "#9467bd", "onnx": "#d62728", "pt2": "#2ca02c", "torchscript": "#8c564b"}


def cells(row: Row) -> list[str]:
    """In the order of COLUMNS: %, thousands, millions, kB, MB, ms, ms, images/s."""
    return [
        row.model,
        row.runtime,
        f"{100 * row.accuracy:.2f}",
        f"{row.parameters / 1e3:,.0f}k",
        f"{row.macs / 1e6:,.1f}M",
        f"{row.bytes / 1e3:,.0f}k",
        "–" if row.memory is None else f"{row.memory / 1e6:,.0f}M",
        f"{row.median_ms:.2f}",
        f"{row.p95_ms:.2f}",
        f"{row.images_per_second:,.0f}",
    ]


def terminal(rows: Sequence[Row], conditions: str) -> Table:
    """In 80 columns; what a model has in all runtimes stands in its first row."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), pad_edge=False, caption=conditions, caption_justify="left")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:2] else "right", overflow="fold")
    last = None
    for row in rows:
        words = cells(row)
        if row.model == last:
            words[0] = words[3] = words[4] = ""
        elif last is not None:
            table.add_section()
        table.add_row(*words)
        last = row.model
    return table


def markdown(rows: Sequence[Row], conditions: str) -> str:
    """A table, and the conditions below it."""
    names = ["model", "runtime", "accuracy, %", "parameters", "MACs", "file, B", "peak memory, B"]
    names += ["ms, batch 1", "p95", f"images/s, batch {BATCH}"]
    lines = [" | ".join(names), " | ".join(["---", "---", *["---:"] * 8]), *(" | ".join(cells(row)) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{conditions}\n"


def comma_separated(rows: Sequence[Row]) -> str:
    """Every number in full, in SI units or as the name says."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(asdict(rows[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def picture(rows: Sequence[Row], conditions: str) -> Figure:
    """Accuracy over latency; the area of a point is the size of its file."""
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.subplots()
    largest = max(row.bytes for row in rows)
    for runtime, color in COLORS.items():
        some = [row for row in rows if row.runtime == runtime]
        if some:
            where = [row.median_ms for row in some], [100 * row.accuracy for row in some]
            areas = [30 + 900 * row.bytes / largest for row in some]
            axes.scatter(*where, s=areas, color=color, alpha=0.55, edgecolor="black", linewidth=0.6, label=runtime)
    models = {name: i for i, name in enumerate(dict.fromkeys(row.model for row in rows), 1)}
    for row in rows:
        place = (row.median_ms, 100 * row.accuracy)
        axes.annotate(str(models[row.model]), place, ha="center", va="center", fontsize=8)
    axes.set(xscale="log", xlabel="latency of one image, ms (log scale)", ylabel="accuracy on test, %")
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
