"""The table of an evaluation, in 80 columns."""

import math
from collections.abc import Callable, Mapping
from statistics import mean
from typing import Any

from rich.table import Table

from kd_lightning.evaluation.corruptions import CORRUPTIONS

Scores = Mapping[str, Any]
# Name, where it is in a model's scores, and its format.
TEST: list[tuple[str, Callable[[Scores], Any], str]] = [
    ("accuracy, %", lambda s: 100 * s["accuracy"], ".2f"),
    ("top-5, %", lambda s: 100 * s["top5"], ".2f"),
    ("worst class, %", lambda s: 100 * min((a for a in s["per_class"] if a is not None), default=math.nan), ".1f"),
    ("NLL, nats", lambda s: s["nll"], ".4f"),
    ("  calibrated", lambda s: s["calibrated"]["nll"], ".4f"),
    ("Brier score", lambda s: s["brier"], ".4f"),
    ("  calibrated", lambda s: s["calibrated"]["brier"], ".4f"),
    ("ECE, 15 bins", lambda s: s["ece"], ".4f"),
    ("  calibrated", lambda s: s["calibrated"]["ece"], ".4f"),
    ("  temperature", lambda s: s["calibrated"]["temperature"], ".3f"),
    ("agrees with teacher, %", lambda s: 100 * s["agreement"], ".2f"),
    ("KL(teacher‖student)", lambda s: s["kl_t1"], ".4f"),
    ("  at temperature 4", lambda s: s["kl_t4"], ".4f"),
]
COST: list[tuple[str, Callable[[Scores], Any], str]] = [
    ("parameters, M", lambda m: m["parameters"] / 1e6, ",.3f"),
    ("MACs, M", lambda m: m["macs"] / 1e6, ",.1f"),
    ("size on disk, MB", lambda m: m["bytes"] / 1e6, ",.2f"),
    ("latency, batch 1, ms", lambda m: _latency(m, "1"), ""),
    ("latency, batch 64, ms", lambda m: _latency(m, "64"), ""),
    ("throughput, samples/s", lambda m: m["latency"]["64"]["samples_per_second"], ",.0f"),
]


def evaluation_table(values: Mapping[str, Any]) -> Table:
    """Return teacher and student side by side, of what `evaluation.json` holds."""
    student, teacher, select = values["student"], values["teacher"], values["select"]
    columns: dict[str, tuple[Scores, Scores]] = {}
    if teacher is not None:
        columns[f"teacher\n{teacher['name']}"] = (teacher, teacher)
    names = sorted((name for name in ("last", "best") if name in student), key=lambda name: name != select)
    if len({student[name]["epoch"] for name in names}) == 1 < len(names):
        names = names[:1]
        titles = {select: f"best = last\nepoch {student[select]['epoch']}"}
    else:
        titles = {name: f"{name}{' (deployed)' * (name == select)}\nepoch {student[name]['epoch']}" for name in names}
    for name in names:
        columns[f"student\n{student['name']}\n{titles[name]}"] = (student, student[name])
    table = Table(
        title=f"{values['run']} · {values['data']['name']}", title_justify="left", caption_justify="left", width=80
    )
    table.add_column("test", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", overflow="fold")
    for label, get, form in TEST:
        _add(table, label, [(get, scores["test"]) for _, scores in columns.values()], form)
    table.add_section()
    for kind in CORRUPTIONS:
        _add(table, f"{kind}, %", [(_mean_of(kind), scores) for _, scores in columns.values()], ".2f")
    table.add_section()
    for label, get, form in COST:  # once for best and last, which are the same network
        _add(table, label, [(get, model) for model in {id(m): m for m, _ in columns.values()}.values()], form)
    table.caption = _conditions(values)
    return table


def _add(table: Table, label: str, cells: list[tuple[Callable[[Scores], Any], Scores]], form: str) -> None:
    words = []
    for get, scores in cells:
        try:
            words.append(format(get(scores), form))
        except KeyError:  # not measured: no teacher, no validation, few classes
            words.append("–")
    if any(word != "–" for word in words):
        table.add_row(label, *words)


def _conditions(values: Mapping[str, Any]) -> str:
    sizes, kind = values["data"]["sizes"], values["data"]["kind"]
    fitted = f"; temperatures were fitted on {sizes['val']:,} validation samples" if sizes["val"] else ""
    lines = [f"{sizes['test']:,} test samples{fitted}."]
    if values["images"]:
        lines.append(f"Corruptions: mean accuracy over 3 strengths, on {values['images']:,} test images.")
    elif kind != "images":
        lines.append(f"Corruptions are left out: they are for images, and the data is {kind!r}.")
    return "\n".join([*lines, f"Latency: median / p95 of a batch, no autocast, on {values['device']}."])


def _mean_of(kind: str) -> Callable[[Scores], float]:
    return lambda scores: 100 * mean(scores["robustness"][kind])


def _latency(model: Scores, batch: str) -> str:
    times = model["latency"][batch]
    return f"{times['median_ms']:.2f} / {times['p95_ms']:.2f}"
