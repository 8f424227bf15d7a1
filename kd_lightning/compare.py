"""Runs side by side: seeds pooled, what differs as rows, gains over the equal-budget baseline."""

import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from kd_lightning import runs
from kd_lightning.report.terminal import say
from kd_lightning.runs import Run

BASELINE = "kd_lightning.losses.CE"


class SweepTable(Callback):
    """Ends a Hydra multirun with the comparison of its runs."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        say(comparison_table(runs.find(folder), folder))


def comparison_table(found: list[Run], folder: Path) -> Table | str:
    """A row a setting: test accuracy of the last epoch as mean ± std over its seeds, and the gain over plain CE.

    The gain is the mean of the differences of runs with the same seed (± their standard deviation): a pair starts from
    the same weights and sees the same batches.
    """
    if not found:
        return f"no finished run in {folder}"
    groups: dict[str, dict[int, Run]] = defaultdict(dict)
    for run, label in zip(found, _labels(found), strict=True):
        groups[label][int(run.config.seed)] = run
    baseline = next((g for g in groups.values() if next(iter(g.values())).config.loss._target_ == BASELINE), None)

    table = Table(title=f"\n{folder}", title_justify="left", caption_justify="left")
    table.add_column("setting", overflow="fold")
    for column in ("seeds", "test accuracy", "gain over CE", "agreement", "seconds"):
        table.add_column(column, justify="right")
    for teacher in _teachers(found):
        table.add_row(*teacher)
    for label, group in groups.items():
        gain = "–" if baseline is None or group is baseline else _gain(group, baseline)
        agreement = _mean_std([_last(r)["agreement"] for r in group.values() if "agreement" in _last(r)])
        seconds = statistics.mean(r.metrics["seconds"] for r in group.values())
        table.add_row(
            label,
            str(len(group)),
            _mean_std([_last(r)["accuracy"] for r in group.values()]),
            gain,
            agreement,
            f"{seconds:.0f}",
        )
    table.caption = "Last epoch, never chosen on test data; mean ± std over seeds; gain paired by seed, in points."
    return table


def _labels(found: list[Run]) -> list[str]:
    """What sets each run apart: the keys, but for the seed, that differ among the runs."""
    flat = [_flatten(OmegaConf.to_container(run.config)) for run in found]
    keys = dict.fromkeys(k for f in flat for k in f)
    differing = [k for k in keys if k not in ("seed", "data.seed") and len({str(f.get(k)) for f in flat}) > 1]
    return [_label(f, differing) or "all" for f in flat]


def _label(values: dict[str, Any], differing: list[str]) -> str:
    parts = [
        values[k].rpartition(".")[2].lower() if k == "loss._target_" else f"{k}={values[k]}"
        for k in differing
        if k in values
    ]
    return " ".join(parts)


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    return {
        k: v for name, child in node.items() for k, v in _flatten(child, f"{prefix}.{name}" if prefix else name).items()
    }


def _teachers(found: list[Run]) -> list[list[str]]:
    rows = {}
    for run in found:
        if teacher := run.metrics.get("teacher"):
            accuracy = teacher["test"]["accuracy"]
            rows[f"teacher {run.config.model.teacher}", accuracy] = f"{accuracy:.2%}"
    return [[name, "", accuracy, "", "", ""] for (name, _), accuracy in rows.items()]


def _gain(group: dict[int, Run], baseline: dict[int, Run]) -> str:
    pairs = [100 * (_last(group[s])["accuracy"] - _last(baseline[s])["accuracy"]) for s in group if s in baseline]
    if not pairs:
        return "no seed shared"
    spread = f" ± {statistics.stdev(pairs):.2f}" if len(pairs) > 1 else ""
    return f"{statistics.mean(pairs):+.2f}{spread}"


def _mean_std(fractions: list[float]) -> str:
    if not fractions:
        return "–"
    spread = f" ± {100 * statistics.stdev(fractions):.2f}" if len(fractions) > 1 else ""
    return f"{100 * math.fsum(fractions) / len(fractions):.2f}{spread} %"


def _last(run: Run) -> dict[str, float]:
    scores: dict[str, float] = run.metrics["student"]["last"]["test"]
    return scores
