"""Runs grouped into settings: what was tried, under which budget, with which seeds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_lightning import runs
from kd_lightning.report.presets import plain, preset_names
from kd_lightning.runs.directory import Run
from kd_lightning.runs.names import with_student_name

BASELINE = "kd_lightning.losses.CE"
LOSS = "loss._target_"
_METHOD = ("loss.", "model.teacher", "teacher_stage.")  # what may differ from the baseline at equal budget
_TEACHER = ("model.teacher", "teacher_stage.")  # which plain training never reads
_REPEAT = ("seed", "data.seed")


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seeds only."""

    label: str
    values: dict[str, Any]
    """Flat configuration, without seeds and what changes no number."""
    runs: dict[str, Run]
    """Seed → run."""
    repeated: tuple[str, ...] = ()
    """Seeds with several runs, of which the last one counts."""

    @property
    def is_baseline(self) -> bool:
        return bool(self.values[LOSS] == BASELINE)

    @property
    def budget(self) -> str:
        """Equal for settings that differ in their method alone."""
        return str(sorted((k, str(v)) for k, v in self.values.items() if not k.startswith(_METHOD)))

    def budget_values(self) -> dict[str, Any]:
        """The budget without the student, which may well differ from row to row."""
        return {k: v for k, v in self.values.items() if not k.startswith((*_METHOD, "model."))}


def group(found: Sequence[Run]) -> list[Setting]:
    """The settings among `found`: budgets in order of appearance, the baseline first in each."""
    flat = [runs.flatten(with_student_name(run.config)) for run in found]
    follows = all(v.get("teacher_stage.seed") == v.get("seed") for v in flat)  # a teacher for each seed
    values = [_relevant(v, "teacher" in run.metrics, follows) for v, run in zip(flat, found, strict=True)]
    settings: dict[str, Setting] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for run, full, label, value in zip(found, flat, _labels(values), values, strict=True):
        setting = settings.setdefault(str(sorted((k, str(v)) for k, v in value.items())), Setting(label, value, {}))
        seed = _seed(full)
        setting.runs[seed] = run
        counts[label, seed] += 1
    budgets = list(dict.fromkeys(s.budget for s in settings.values()))
    ordered = sorted(settings.values(), key=lambda s: (budgets.index(s.budget), not s.is_baseline))
    return [
        Setting(s.label, s.values, s.runs, tuple(seed for seed in s.runs if counts[s.label, seed] > 1)) for s in ordered
    ]


def _relevant(flat: Mapping[str, Any], has_teacher: bool, teacher_follows_seed: bool) -> dict[str, Any]:
    without = _REPEAT + runs.INCIDENTAL + (("teacher_stage.seed",) if teacher_follows_seed else ())
    kept = {k: v for k, v in flat.items() if k not in without and (has_teacher or not k.startswith(_TEACHER))}
    if kept.get("model.student_weights") is None:
        kept.pop("model.student_weights", None)  # which older runs have not
    return {k: plain(v) for k, v in kept.items()}


def _seed(flat: Mapping[str, Any]) -> str:
    seed, order = flat.get("seed"), flat.get("data.seed", flat.get("seed"))
    return str(seed) if seed == order else f"{seed}/{order}"


def _labels(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """What tells the settings apart: the loss, and every key that differs among the runs it can be compared in.

    The loss is named by its preset where all runs of its class have one.
    """
    names = preset_names(values)
    differs = set()  # (key, what it belongs to)
    for key in dict.fromkeys(k for flat in values for k in flat):
        seen: dict[str, set[str]] = {}
        for flat in values:
            if key in flat or not key.startswith(_TEACHER):
                seen.setdefault(_target(key, flat), set()).add(str(flat.get(key)))
        differs |= {(key, target) for target, found in seen.items() if len(found) > 1}
    labels = []
    for flat, name in zip(values, names, strict=True):
        keys = {LOSS, *(k for k in flat if (k, _target(k, flat)) in differs)}
        kept = [k for k in sorted(keys, key=_rank) if name is None or k == LOSS or not k.startswith("loss.")]
        labels.append(" ".join(name if name and k == LOSS else _word(k, flat[k]) for k in kept))
    return labels


def _target(key: str, flat: Mapping[str, Any]) -> str:
    """A key is compared where it means the same: a temperature does in two KD runs, not in KD and DKD."""
    target = f"{key.partition('.')[0]}._target_"
    return "" if key == target else str(flat.get(target))


def _rank(key: str) -> tuple[bool, bool, str]:
    """Student, loss, then the rest by name."""
    return key != "model.student", key != LOSS, key


def _word(key: str, value: Any) -> str:
    """`resnet8`, `kd`, `temperature=4`."""
    value = f"{value:g}" if isinstance(value, float) else value
    if key.endswith("_target_"):
        return str(value).rpartition(".")[2].removesuffix("DataModule").lower()
    if key.startswith("teacher_stage."):
        return f"{key}={value}"
    if key.count(".") > 1:  # a schedule of loss.alpha
        return f"{key.partition('.')[2]}={value}"
    return str(value) if key == "model.student" else f"{key.rpartition('.')[2]}={value}"
