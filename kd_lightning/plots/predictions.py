"""Figure of predictions: images beside bars of the largest probabilities."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from kd_lightning.plots.evaluation import COLORS
from kd_lightning.plots.style import short


class Cell(NamedTuple):
    """One image and what the models predict."""

    title: str
    pixels: Any
    """Array uint8 `[H, W, 3]`."""
    top: Mapping[str, Sequence[tuple[str, float]]]
    """Model → classes and their probabilities, largest first."""


def predictions_figure(cells: Sequence[Cell]) -> Figure:
    """Draw each image beside bars of each model's largest probabilities, in up to three columns."""
    columns = min(3, len(cells))
    rows = -(-len(cells) // columns)
    models, shown = len(cells[0].top), max(len(best) for best in cells[0].top.values())
    height = 0.45 + 0.21 * shown * models + 0.25 * (models - 1)
    figure = Figure(figsize=(4.6 * columns, max(1.3, height) * rows), layout="constrained")
    panels = figure.subplots(rows, 2 * columns, squeeze=False, width_ratios=[1, 1.6] * columns).reshape(-1, 2)
    for panel in panels.flat:
        panel.axis("off")
    for (picture, bars), cell in zip(panels, cells, strict=False):
        picture.imshow(cell.pixels, interpolation="nearest")
        picture.set_title(short(cell.title, 24), fontsize=9)
        at = 0.0
        for name, best in cell.top.items():
            if models > 1:
                bars.text(0, at, name, fontsize=8, weight="bold", va="center")
                at += 1
            for label, probability in best:
                bars.barh(at, probability, 0.85, color=COLORS[name.rpartition("/")[2]], alpha=0.45)
                bars.text(0.01, at, f"{probability:.1%}  {short(label, 22)}", fontsize=8, va="center")
                at += 1
        bars.set(xlim=(0, 1), ylim=(at - 0.4, -0.6))
    return figure
