"""The results as a table, as JSON with versions and hardware, and as a bar chart."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.result import Result
from benchmarks.setting import Setting
from benchmarks.timing import matmul_tflops
from kd_lightning.utils import hardware

VERDICT = {True: "met", False: "missed", None: "–"}


def about(setting: Setting, command: str) -> dict[str, Any]:
    """The command, what was run on what, and all versions."""
    names = ("accelerator", "student", "teacher", "images", "batch", "repeats", "quick")
    own = {name: getattr(setting, name) for name in names}
    dtype = torch.float32 if setting.precision == "32-true" else torch.bfloat16
    rate = matmul_tflops(setting.device, dtype)
    return {
        "command": command,
        **own,
        "precision": setting.precision,
        "matmul_tflops": rate,
        **hardware.describe(setting.accelerator),
    }


def show(results: Sequence[Result], machine: dict[str, Any]) -> None:
    """Print the rows in 80 columns; their notes were printed as each row was measured."""
    table = Table(caption=caption(machine), caption_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    table.add_column("benchmark", no_wrap=True)
    for name in ("measured", "quartiles", "minima"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("target", min_width=8)
    table.add_column("")
    for r in results:
        table.add_row(r.name, number(r), quartiles(r), minimum(r), r.target, VERDICT[r.met])
    Console().print(table)


def caption(machine: dict[str, Any]) -> str:
    return (
        f"{machine['student']} ← {machine['teacher']}, {machine['images']:,} images in batches of {machine['batch']}, "
        f"{machine['precision']}, {machine['repeats']} repeats; {machine['device']}, matrix products at "
        f"{1000 * machine['matmul_tflops']:,.0f} GFLOP/s, torch {machine['versions']['torch']}"
    )


def number(r: Result) -> str:
    if r.unit == "×":
        return f"{r.value:.2f} ×"
    return f"{r.value:.1e}" if r.value < 0.01 else f"{r.value:,.0f}{r.unit}"


def quartiles(r: Result) -> str:
    return "–" if r.quartiles is None else "{:.2f}–{:.2f}".format(*r.quartiles)


def minimum(r: Result) -> str:
    return "–" if r.minimum is None else f"{r.minimum:.2f} ×"


def markdown(results: Sequence[Result], machine: dict[str, Any]) -> str:
    rows = [
        f"| `{r.name}` | {number(r)} | {quartiles(r)} | {minimum(r)} | {r.target} | {VERDICT[r.met]} | {r.note} |"
        for r in results
    ]
    head = "| benchmark | measured | quartiles | minima | target | | |\n|---|---|---|---|---|---|---|"
    return f"`{machine['command']}`\n\n{caption(machine)}\n\n{head}\n" + "\n".join(rows) + "\n"


def write(folder: Path, results: Sequence[Result], machine: dict[str, Any]) -> None:
    """`benchmarks.json`, `benchmarks.md`, `benchmarks.png` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"machine": machine, "results": [asdict(r) for r in results]}
    (folder / "benchmarks.json").write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    (folder / "benchmarks.md").write_text(markdown(results, machine))
    ratios = [r for r in results if r.unit == "×"]
    if ratios:
        chart(ratios, machine).savefig(folder / "benchmarks.png", dpi=110)


def chart(ratios: Sequence[Result], machine: dict[str, Any]) -> Figure:
    """One bar a ratio on a logarithmic axis, with its target as a line across it."""
    figure = Figure(figsize=(8, 0.5 * len(ratios) + 1.4), layout="constrained")
    axes = figure.subplots()
    colors = {True: "#2a7f62", False: "#b3542d", None: "#6b7280"}
    for y, r in enumerate(reversed(ratios)):
        axes.barh(y, r.value - 1, left=1, color=colors[r.met], height=0.55)
        right = max(r.value, 1.0)
        if r.target[0] in "≤≥" and r.met is not None:
            target = float(r.target.split()[1])
            axes.plot([target, target], [y - 0.4, y + 0.4], color="black", linewidth=1.5)
            if right < target < 1.5 * right:  # beside the line, not under it
                right = target
        axes.text(1.03 * right, y, f"{r.value:.2f} ×", va="center", fontsize=9)
    axes.set_xscale("log")
    axes.set_yticks(range(len(ratios)), [r.name for r in reversed(ratios)], fontsize=9)
    axes.set_xlim(min(0.3, *(r.value for r in ratios)), 1.6 * max(2.0, *(r.value for r in ratios)))
    ticks = [t for t in (0.5, 1, 2, 5, 10, 20, 50, 100, 200) if t < axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.axvline(1, color="#9ca3af", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("ratio (black line: target)", fontsize=9)
    axes.set_title(f"{machine['student']} ← {machine['teacher']} on {machine['device']}", fontsize=9, loc="left")
    return figure
