"""The table of an evaluation, in 80 columns."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from statistics import mean
from typing import Any

from rich.table import Table

from kd_lightning.evaluation.corruptions import CORRUPTIONS
from kd_lightning.utils.calibration import FEWEST
from kd_lightning.utils.names import task_name
from kd_lightning.utils.tables import Column, terminal

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
    """Return teacher and student side by side, of what `evaluation.json` holds; for each task, if there are several."""
    columns = {
        task_name(task, key): (f"{task}\n{head}".strip(), network, scores)
        for task, own in values.get("tasks", {"": values}).items()
        for key, (head, network, scores) in _columns(own).items()
    }
    tests = {key: scores["test"] for key, (_, _, scores) in columns.items()}
    models = {key: scores for key, (_, _, scores) in columns.items()}
    teachers = [key for key in columns if key.endswith("teacher")]
    deployed = next(key for key in columns if key not in teachers)  # the other students are the same network
    networks = {key: network for key, (_, network, _) in columns.items() if key in (*teachers, deployed)}
    rows = _rows(TEST, tests)
    corruptions = [(f"{kind}, %", _mean_of(kind), ".2f") for kind in CORRUPTIONS]
    for section in (_rows(corruptions, models), _rows(COST, networks)):
        rows += [{}, *section] if section else []
    heads = [Column(key, head, align="right") for key, (head, _, _) in columns.items()]
    return terminal([Column("label", "test"), *heads], rows)


def _columns(values: Mapping[str, Any]) -> dict[str, tuple[str, Scores, Scores]]:
    """Return key → header, what is known of the network, and of these weights; the deployed student comes first."""
    student, teacher, select = values["student"], values["teacher"], values["select"]
    columns: dict[str, tuple[str, Scores, Scores]] = {}
    if teacher is not None:
        columns["teacher"] = f"teacher\n{teacher['name']}", teacher, teacher
    names = sorted((name for name in ("last", "best") if name in student), key=lambda name: name != select)
    titles = {name: f"{name} (deployed)" if name == select else name for name in names}
    if len({student[name]["epoch"] for name in names}) == 1 < len(names):
        names, titles = names[:1], {select: "best = last"}
    for name in names:
        head = f"student\n{student['name']}\n{titles[name]}\nepoch {student[name]['epoch']}"
        columns[name] = head, student, student[name]
    return columns


def _rows(lines: list[tuple[str, Callable[[Scores], Any], str]], columns: Mapping[str, Scores]) -> list[dict[str, str]]:
    """Return a row for each line that at least one column has; a dash where a score was not measured."""
    rows = []
    for label, get, form in lines:
        cells = {}
        for key, scores in columns.items():
            with suppress(KeyError):  # no teacher, no validation, few classes
                cells[key] = format(get(scores), form)
        if cells:
            rows.append({"label": label} | dict.fromkeys(columns, "–") | cells)
    return rows


def conditions(values: Mapping[str, Any]) -> str:
    """Return the lines below the table: what was measured on what."""
    values = next(iter(values["tasks"].values())) if "tasks" in values else values
    sizes, kind = values["data"]["sizes"], values["data"]["kind"]
    fitted = f"; temperatures were fitted on {sizes['val']:,} validation samples" if sizes["val"] >= FEWEST else ""
    lines = [f"{sizes['test']:,} test samples{fitted}."]
    if values["images"]:
        lines.append(f"Corruptions: mean accuracy over 3 strengths, on {values['images']:,} test images.")
    elif kind != "images":
        lines.append(f"Corruptions are left out: they are for images, and the data is {kind!r}.")
    return "\n".join([*lines, "Latency: median / p95 of a batch, no autocast.", f"Measured on {values['device']}."])


def _mean_of(kind: str) -> Callable[[Scores], float]:
    return lambda scores: 100 * mean(scores["robustness"][kind])


def _latency(model: Scores, batch: str) -> str:
    times = model["latency"][batch]
    return f"{times['median_ms']:.2f} / {times['p95_ms']:.2f}"
