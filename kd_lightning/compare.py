"""Runs side by side: seeds pooled, what differs as rows, gains over the equal-budget baseline.

`python -m kd_lightning.compare outputs/sweep/<sweep> …`
"""

import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from kd_lightning import runs
from kd_lightning.checks import UserError
from kd_lightning.cli import clear_errors
from kd_lightning.report.summary import teacher_name
from kd_lightning.report.terminal import say
from kd_lightning.runs import Run

BASELINE = "kd_lightning.losses.CE"
LOSS = "loss._target_"
# Keys in which a run may differ from its baseline and still have had the same budget.
_OF_THE_METHOD = ("loss.", "model.teacher", "teacher_stage.")
_OF_THE_REPEAT = ("seed", "data.seed", "resume")


class SweepTable(Callback):
    """Ends a Hydra multirun with the comparison of its runs."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if runs.find(Path(config.hydra.sweep.dir)):
            compare([Path(config.hydra.sweep.dir)])


def compare(folders: list[Path]) -> None:
    """Prints the comparison of all finished runs below `folders`. Raises UserError if there is none."""
    where = " ".join(map(str, folders))
    found = [run for folder in folders for run in runs.find(folder)]
    if not found:
        raise UserError(f"no finished run below {where or 'nothing'}; give run directories, or folders of them")
    say(comparison_table(found))
    say(f"again: python -m kd_lightning.compare {where}")


def comparison_table(found: list[Run]) -> Table:
    """A row a setting: test scores of the last epoch as mean ± std over its seeds, and the gain over plain CE.

    The gain is the mean of the differences between runs of one seed, ± their standard deviation, in points: a pair
    starts from the same weights and sees the same batches. Its baseline is the setting with loss=ce that differs in
    nothing else.
    """
    values = [_flatten(OmegaConf.to_container(run.config)) for run in found]
    settings: dict[str, dict[int, Run]] = defaultdict(dict)
    budgets: dict[str, str] = {}
    for run, flat, label in zip(found, values, _labels(values), strict=True):
        settings[label][run.config.seed] = run
        budgets[label] = str({k: v for k, v in flat.items() if not k.startswith(_OF_THE_METHOD + _OF_THE_REPEAT)})
    baselines = {
        budgets[name]: s for name, s in settings.items() if next(iter(s.values())).config.loss._target_ == BASELINE
    }

    table = Table(
        caption_justify="left", caption="Last epoch on test data; mean ± std over seeds; gain paired by seed."
    )
    table.add_column("setting", overflow="fold")
    for column in ("seeds", "accuracy %", "gain over CE", "agreement %", "s"):
        table.add_column(column, justify="right")
    for name, accuracy in dict.fromkeys(_teacher(run) for run in found if "teacher" in run.metrics):
        table.add_row(f"teacher {name}", "", accuracy)
    for name, setting in settings.items():
        baseline = baselines.get(budgets[name], {})
        table.add_row(
            name,
            str(len(setting)),
            _mean_std([100 * _last(run)["accuracy"] for run in setting.values()]),
            "baseline" if baseline is setting else _gain(setting, baseline),
            _mean_std([100 * _last(run)["agreement"] for run in setting.values() if "agreement" in _last(run)]),
            f"{statistics.mean(run.metrics['seconds'] for run in setting.values()):.0f}",
        )
    return table


def _labels(values: list[dict[str, Any]]) -> list[str]:
    """What tells the settings apart: the loss, and every key that differs among the runs it can be compared in."""
    keys = [k for k in dict.fromkeys(k for flat in values for k in flat) if not k.startswith(_OF_THE_REPEAT)]
    labels = []
    for flat in values:
        differing = [
            k for k in keys if k in flat and len({str(o[k]) for o in values if k in o and _alike(k, o, flat)}) > 1
        ]
        labels.append(" ".join(_word(k, flat[k]) for k in dict.fromkeys([*differing, LOSS])))
    return labels


def _alike(key: str, a: dict[str, Any], b: dict[str, Any]) -> bool:
    """Whether `key` means the same in both: a temperature does in two KD runs, not in KD and DKD."""
    target = f"{key.partition('.')[0]}._target_"
    return key == target or a.get(target) == b.get(target)


def _word(key: str, value: Any) -> str:
    """`resnet8`, `kd`, `temperature=4.0`."""
    if key.endswith("_target_"):
        return str(value).rpartition(".")[2].removesuffix("DataModule").lower()
    return str(value) if key == "model.student" else f"{key.rpartition('.')[2]}={value}"


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(node, dict):
        return {prefix: node}
    parts = [_flatten(child, f"{prefix}.{name}" if prefix else str(name)) for name, child in node.items()]
    return {key: value for part in parts for key, value in part.items()}


def _teacher(run: Run) -> tuple[str, str]:
    return teacher_name(run.config), f"{100 * run.metrics['teacher']['test']['accuracy']:.2f}"


def _gain(setting: dict[int, Run], baseline: dict[int, Run]) -> str:
    shared = [seed for seed in setting if seed in baseline]
    return _mean_std([100 * (_last(setting[s])["accuracy"] - _last(baseline[s])["accuracy"]) for s in shared], "+.2f")


def _mean_std(values: list[float], form: str = ".2f") -> str:
    if not values:
        return "–"
    return f"{statistics.mean(values):{form}}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def _last(run: Run) -> dict[str, float]:
    scores: dict[str, float] = run.metrics["student"]["last"]["test"]
    return scores


def main() -> None:
    """`python -m kd_lightning.compare FOLDER …`"""
    with clear_errors():
        compare([Path(folder) for folder in sys.argv[1:]])


if __name__ == "__main__":
    main()
