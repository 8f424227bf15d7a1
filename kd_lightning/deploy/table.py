"""The deployment table on the terminal, as Markdown and as CSV."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kd_lightning.deploy.measure import BATCH, Row
from kd_lightning.utils import tables
from kd_lightning.utils.names import task_name
from kd_lightning.utils.tables import Column

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = (
    Column("model", "model"),
    Column("runtime", "runtime"),
    Column("accuracy", "accuracy, %", lambda share: f"{100 * share:.2f}", "right"),
    Column("parameters", "parameters", lambda n: f"{n / 1e3:,.0f}k", "right"),
    Column("macs", "MACs", lambda n: f"{n / 1e6:,.1f}M", "right"),
    Column("bytes", "file, B", lambda n: f"{n / 1e3:,.0f}k", "right"),
    Column("memory", "peak memory, B", lambda n: f"{n / 1e6:,.0f}M", "right"),
    Column("median_ms", "ms, batch 1", ".2f"),
    Column("p95_ms", "p95", ".2f"),
    Column("samples_per_second", f"samples/s, batch {BATCH}", ",.0f"),
)
SHORT = {
    "accuracy": "acc %",
    "parameters": "params",
    "bytes": "file",
    "memory": "peak",
    "median_ms": "ms",
    "samples_per_second": "1/s",
}
"""Headers for a terminal of 80 columns."""


def columns_of(rows: Sequence[Row]) -> list[Column]:
    """Return the columns, with one for the accuracy of each task in place of that for all, if there are several."""
    tasks = list(dict.fromkeys(task for row in rows for task in row.accuracies))
    at = next(i for i, column in enumerate(COLUMNS) if column.key == "accuracy")
    each = [Column(task_name(task, "accuracy"), f"{task}, %", COLUMNS[at].format, "right") for task in tasks]
    return [*COLUMNS[:at], *(each or [COLUMNS[at]]), *COLUMNS[at + 1 :]]


def _values(row: Row) -> dict[str, Any]:
    return asdict(row) | {task_name(task, "accuracy"): share for task, share in row.accuracies.items()}


def terminal(rows: Sequence[Row], conditions: str) -> "Table":
    """Return a table of 80 columns without p95; what a model has in all runtimes stands in its first row."""
    kept = [column for column in columns_of(rows) if column.key != "p95_ms"]
    columns = [Column(c.key, SHORT.get(c.key, c.header), c.format, c.align) for c in kept]
    shown, last = [], None
    for row in rows:
        values = _values(row)
        if row.model == last:
            values |= dict.fromkeys(("model", "parameters", "macs"))
        shown.append(values)
        last = row.model
    table = tables.terminal(columns, shown)
    table.caption, table.caption_justify = conditions, "left"
    return table


def markdown(rows: Sequence[Row], conditions: str) -> str:
    """Return a table in Markdown, and the conditions below it."""
    return f"{tables.markdown(columns_of(rows), [_values(row) for row in rows])}\n\n{conditions}\n"


def csv_text(rows: Sequence[Row]) -> str:
    """Return CSV with every number in full, in SI units or as the name says."""
    return tables.csv_text(columns_of(rows), [_values(row) for row in rows])
