"""Predictions as JSON, as a table, and as a sheet of pictures."""

import json
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from kd_lightning.evaluation.prediction import Prediction
from kd_lightning.plots.evaluation import COLORS


def as_json(prediction: Prediction) -> str:
    """`{"image": …, "student": [{"class": …, "probability": …}, …]}` in one line."""
    told: dict[str, Any] = {"image": str(prediction.path)}
    for name, best in prediction.top.items():
        told[name] = [{"class": c, "probability": round(p, 6)} for c, p in best]
    return json.dumps(told, ensure_ascii=False)


def table(predictions: list[Prediction]) -> Table:
    """An image a row, a model a column."""
    drawn = Table(show_lines=len(predictions) > 1)
    drawn.add_column("image", overflow="fold")
    for name in predictions[0].top:
        drawn.add_column(name)
    for path, _, top in predictions:
        drawn.add_row(str(path), *("\n".join(f"{p:6.1%}  {c}" for c, p in best) for best in top.values()))
    return drawn


def sheet(predictions: list[Prediction]) -> Figure:
    """Each image as the models see it, beside bars of their largest probabilities."""
    columns = min(3, len(predictions))
    rows = -(-len(predictions) // columns)
    models, shown = len(predictions[0].top), max(len(best) for best in predictions[0].top.values())
    height = 0.45 + 0.21 * shown * models + 0.25 * (models - 1)
    figure = Figure(figsize=(4.6 * columns, max(1.3, height) * rows), layout="constrained")
    cells = figure.subplots(rows, 2 * columns, squeeze=False, width_ratios=[1, 1.6] * columns).reshape(-1, 2)
    for cell in cells.flat:
        cell.axis("off")
    for (picture, bars), prediction in zip(cells, predictions, strict=False):
        picture.imshow(prediction.pixels.numpy(), interpolation="nearest")
        picture.set_title(_short(prediction.path.name, 24), fontsize=9)
        at = 0.0
        for name, best in prediction.top.items():
            if models > 1:
                bars.text(0, at, name, fontsize=8, weight="bold", va="center")
                at += 1
            for c, p in best:
                bars.barh(at, p, 0.85, color=COLORS[name], alpha=0.45)
                bars.text(0.01, at, f"{p:.1%}  {_short(c, 22)}", fontsize=8, va="center")
                at += 1
        bars.set(xlim=(0, 1), ylim=(at - 0.4, -0.6))
    return figure


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
