"""Write a line for each finished run of a study: `python docs/collect_study.py FOLDER docs/studies/NAME.csv`.

FOLDER holds run directories `<setting>_<seed>` or `<setting>/<seed>`, as the studies' experiments name them; others are
refused, and so are runs with several tasks. NAME is the study. Lines of runs that are in the file already are replaced,
the others stay, so that a study may be collected as it goes on, on several machines. docs/make_studies.py makes tables
and pictures from the file.

    --command WORDS   how a run is repeated, with {setting} and {seed}; by default from its configuration
"""

import argparse
import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_lightning import runs
from kd_lightning.report.commands import train_command
from kd_lightning.report.groups import group
from kd_lightning.runs.directory import Run
from kd_lightning.runs.names import with_student_name
from kd_lightning.utils.names import tasks_in

_SCORES = {
    "val_accuracy": ("val", "accuracy"),
    "test_accuracy": ("test", "accuracy"),
    "test_nll": ("test", "nll"),
    "test_ece": ("test", "ece"),
    "calibrated_nll": ("calibrated", "test", "nll"),
    "calibrated_ece": ("calibrated", "test", "ece"),
    "temperature": ("calibrated", "temperature"),
}
"""Column → where metrics.json has it, below the deployed student."""
COLUMNS = ("study", "setting", "student", "seed", "images_seen", "labels", *_SCORES, "seconds", "revision", "command")


def row(study: str, run: Run, command: str = "") -> dict[str, Any]:
    """Return the line of a run; a score that it does not have is empty.

    Raises:
        SystemExit: If the folder's name does not tell setting and seed, or the run has several tasks.
    """
    if tasks_in(run.student["test"]) != [""]:
        raise SystemExit(f"{run.path} has several tasks, collect it with: python docs/tasks_study.py --collect OUT")
    name = re.fullmatch(r"(?:.*/)?([^/]+)[_/](\d+)", run.path.absolute().as_posix())
    if name is None:
        wanted = f"<setting>_<seed> or <setting>/<seed>, as ce_{run.config.seed}"
        raise SystemExit(f"{run.path}: the folder must be named {wanted}; rename it")
    setting, seed = name.groups()
    config, metrics = with_student_name(run.config), run.metrics
    reads_labels = config.loss.get("ce_weight", 1) != 0
    values: dict[str, Any] = {"study": study, "setting": setting, "student": config.model.student, "seed": seed}
    values |= {"images_seen": metrics.get("images_seen"), "labels": metrics.get("labels") if reads_labels else 0}
    values |= {name: _at(run.student, keys) for name, keys in _SCORES.items()}
    values |= {"seconds": round(metrics["seconds"]), "revision": metrics.get("git_revision")}
    command = command.replace("{setting}", setting).replace("{seed}", seed)
    values["command"] = command or train_command(group([run])[0])
    return {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in values.items()}


def _at(scores: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        scores = (scores or {}).get(key)
    return scores


def collect(folder: Path, file: Path, command: str = "") -> list[Mapping[str, Any]]:
    """Add the finished runs of `folder` to `file`, sorted by setting, `ce` first, and seed; return all lines."""
    kept: dict[tuple[str, ...], Mapping[str, Any]] = {}
    if file.is_file():
        with open(file, newline="", encoding="utf-8") as f:
            kept = {_key(line): line for line in csv.DictReader(f)}
    for path in runs.below(folder):
        if runs.is_finished(path):
            line = row(file.stem, runs.read(path), command)
            kept[_key(line)] = line
    lines = sorted(kept.values(), key=lambda line: (line["setting"] != "ce", line["setting"], int(line["seed"])))
    with open(file, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    return lines


def _key(line: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(line[name]) for name in ("study", "setting", "student", "seed"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--command", default="")
    args = parser.parse_args()
    print(f"{args.file}: {len(collect(args.folder, args.file, args.command))} runs")
