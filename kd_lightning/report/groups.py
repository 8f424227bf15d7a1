"""Runs grouped into settings: everything but the seed is equal within one."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from kd_lightning import runs
from kd_lightning.report.budgets import METHOD, TEACHER, budgets
from kd_lightning.report.presets import plain, preset_names
from kd_lightning.runs.directory import Run
from kd_lightning.runs.names import with_student_name

BASELINE = "kd_lightning.losses.CE"
LOSS = "loss._target_"
_REPEAT = ("seed", "data.seed")


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seeds only."""

    label: str
    values: dict[str, Any]
    """Flat configuration, without seeds and keys that change no number."""
    runs: dict[str, Run]
    """Seed → finished run."""
    diverged: dict[str, Run]
    """Seed → run whose loss was not a finite number; it has no scores."""
    repeated: tuple[str, ...] = ()
    """Seeds with several runs; the last one counts."""
    budget: str = ""
    """Equal for settings which differ in their method alone and were trained on equally many images."""

    @property
    def is_baseline(self) -> bool:
        return bool(self.values[LOSS] == BASELINE)

    @property
    def first(self) -> Run:
        return next(iter({**self.runs, **self.diverged}.values()))

    @property
    def images_seen(self) -> int | None:
        """Training samples of all steps; None if no run tells."""
        return next((n for run in self.runs.values() if (n := run.metrics.get("images_seen"))), None)

    def budget_values(self) -> dict[str, Any]:
        """Return the budget without the student, which may differ from setting to setting."""
        return {k: v for k, v in self.values.items() if not k.startswith((*METHOD, "model."))}


def group(found: Sequence[Run]) -> list[Setting]:
    """Group runs, finished or diverged: budgets in order of appearance, the baseline first in each."""
    flat = [runs.flatten(with_student_name(run.config)) for run in found]
    follows = all(v.get("teacher_stage.seed") == v.get("seed") for v in flat)  # a teacher for each seed
    taught = [{"teacher", "stored_teacher"} & run.metrics.keys() for run in found]
    untaught = {v[LOSS] for v, run, by in zip(flat, found, taught, strict=True) if _is_finished(run) and not by}
    values = [_relevant(v, v[LOSS] not in untaught | {BASELINE}, follows) for v in flat]
    values = [v | root | file for v, root, file in zip(values, _roots(found), _labels_files(found), strict=True)]
    settings: dict[str, Setting] = {}
    counts: Counter[tuple[str, str]] = Counter()
    for run, full, label, value in zip(found, flat, _labels(values), values, strict=True):
        setting = settings.setdefault(str(sorted((k, str(v)) for k, v in value.items())), Setting(label, value, {}, {}))
        seed = _seed(full)
        (setting.runs if _is_finished(run) else setting.diverged)[seed] = run
        counts[label, seed] += 1
    unsorted = list(settings.values())
    keys = budgets([s.values for s in unsorted], [s.images_seen for s in unsorted])
    order = list(dict.fromkeys(keys))
    found_settings = [
        replace(s, budget=key, repeated=tuple(seed for seed in s.runs if counts[s.label, seed] > 1))
        for s, key in zip(unsorted, keys, strict=True)
    ]
    return sorted(found_settings, key=lambda s: (order.index(s.budget), not s.is_baseline))


def _roots(found: Sequence[Run]) -> list[dict[str, Any]]:
    """Return `data.root` of each run if they read different samples; copies of the same samples have one root."""
    first: dict[str, str] = {}  # fingerprint of the samples → folder
    roots = []
    for run in found:
        root = str(run.config.data.get("root"))
        samples = run.metrics.get("samples")
        roots.append(root if samples is None else first.setdefault(str(samples), root))
    return [{"data.root": root} if len(first) > 1 and len(set(roots)) > 1 else {} for root in roots]


def _labels_files(found: Sequence[Run]) -> list[dict[str, Any]]:
    """Return `data.labels` of each run that has one, told apart where the file was corrected between runs."""
    seen: dict[str, dict[str, None]] = {}  # file → fingerprints of what it said
    for run in found:
        if (file := run.config.data.get("labels")) is not None and (said := run.metrics.get("labels_fingerprint")):
            seen.setdefault(str(file), {})[said] = None
    files: list[dict[str, Any]] = []
    for run in found:
        file, said = run.config.data.get("labels"), run.metrics.get("labels_fingerprint")
        mark = f" ({said[:4]})" if said and len(seen[str(file)]) > 1 else ""
        files.append({} if file is None else {"data.labels": f"{file}{mark}"})
    return files


def _is_finished(run: Run) -> bool:
    return not run.metrics.get("diverged")


def _relevant(flat: Mapping[str, Any], has_teacher: bool, teacher_follows_seed: bool) -> dict[str, Any]:
    without = _REPEAT + runs.INCIDENTAL + (("teacher_stage.seed",) if teacher_follows_seed else ())
    kept = {k: v for k, v in flat.items() if k not in without and (has_teacher or not k.startswith(TEACHER))}
    return {k: plain(v) for k, v in kept.items()}


def _seed(flat: Mapping[str, Any]) -> str:
    seed, order = flat.get("seed"), flat.get("data.seed", flat.get("seed"))
    return str(seed) if seed == order else f"{seed}/{order}"


def _labels(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name each configuration by its loss, and by every key that differs among those it can be compared in.

    A loss is named by its preset if all runs of its class have one, weights by the end of their path if that is enough.
    """
    names = preset_names(values)
    paths = {v for flat in values for k, v in flat.items() if k.endswith("_weights") and isinstance(v, str)}
    ends = {path: PurePath(path).name for path in paths}
    if len(set(ends.values())) < len(ends):
        ends = {}
    differs = set()  # (key, what it belongs to)
    for key in dict.fromkeys(k for flat in values for k in flat):
        seen: dict[str, set[str]] = {}
        for flat in values:
            if key in flat or not key.startswith(TEACHER):
                seen.setdefault(_target(key, flat), set()).add(str(flat.get(key)))
        differs |= {(key, target) for target, found in seen.items() if len(found) > 1}
    labels = []
    for flat, name in zip(values, names, strict=True):
        keys = {LOSS, *(k for k in flat if (k, _target(k, flat)) in differs)}
        kept = [k for k in sorted(keys, key=_rank) if name is None or k == LOSS or not k.startswith("loss.")]
        labels.append(" ".join(name if name and k == LOSS else _word(k, ends.get(str(flat[k]), flat[k])) for k in kept))
    return labels


def _target(key: str, flat: Mapping[str, Any]) -> str:
    """Return the class that a key belongs to: a temperature means the same in two KD runs, not in KD and DKD."""
    target = f"{key.partition('.')[0]}._target_"
    return "" if key == target else str(flat.get(target))


def _rank(key: str) -> tuple[bool, bool, str]:
    """Sort by student, loss, then the rest by name."""
    return key != "model.student", key != LOSS, key


def _word(key: str, value: Any) -> str:
    """Return `resnet8`, `kd` or `temperature=4`."""
    value = f"{value:g}" if isinstance(value, float) else value
    if key == "data.task":
        return f"task={value}" if value else "all tasks"
    if key.endswith("_target_"):
        return str(value).rpartition(".")[2].removesuffix("DataModule").lower()
    if key.startswith("teacher_stage."):
        return f"{key}={value}"
    if key.count(".") > 1:  # a schedule of loss.alpha
        return f"{key.partition('.')[2]}={value}"
    return str(value) if key == "model.student" else f"{key.rpartition('.')[2]}={value}"
