"""One description of a table, and three ways to write it: for the terminal, as Markdown, as CSV.

    columns = [Column("name", "model"), Column("accuracy", "accuracy, %", ".2f")]
    rows = [{"name": "resnet8", "accuracy": 78.9}]
    print(markdown(columns, rows))

Rows hold values, not text. A missing value, or None, is an empty cell.
"""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    key: str
    header: str
    format: str | Callable[[Any], str] = ""
    """Format specification, as in `f"{value:.2f}"`, or a function of the value."""
    align: str | None = None
    """`left` or `right`; None: to the right if `format` is given."""

    @property
    def right(self) -> bool:
        return self.align == "right" or (self.align is None and bool(self.format))

    def text(self, row: Mapping[str, Any]) -> str:
        """Return the cell of `row` as people read it, with a true minus sign."""
        value = row.get(self.key)
        if value is None:
            return ""
        if callable(self.format):
            return self.format(value)
        text = format(value, self.format)
        return text.replace("-", "−", 1) if isinstance(value, (int, float)) else text


def terminal(columns: Sequence[Column], rows: Rows) -> "Table":
    """Return a rich table; the first column folds where the terminal is narrow, numbers never do."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True, show_edge=False)
    for i, column in enumerate(columns):
        justify: Any = "right" if column.right else "left"
        table.add_column(
            column.header, justify=justify, no_wrap=column.right, overflow="fold", min_width=0 if i else 14
        )
    for row in rows:
        table.add_row(*(Text(column.text(row)) for column in columns))
    return table


def markdown(columns: Sequence[Column], rows: Rows) -> str:
    """Return a Markdown table without a final newline."""
    lines = [[column.header for column in columns], ["---:" if column.right else "---" for column in columns]]
    lines += [[column.text(row) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def csv_text(columns: Sequence[Column], rows: Rows) -> str:
    """Return the values in full under their keys; several values of a cell are divided by spaces."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for row in rows:
        writer.writerow([_plain(row.get(column.key)) for column in columns])
    return out.getvalue()


def _plain(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
