"""The teachers of some runs, each once and by its name."""

from collections.abc import Hashable, Sequence

from kd_lightning.runs.directory import Run
from kd_lightning.runs.names import teacher_name

_SAME_DECISIONS = ("teacher_weights", "teacher_cache", "teacher_calibration")
"""Keys that say where the weights lie, or leave the teacher's classes as they are."""


def teachers_of(found: Sequence[Run]) -> dict[str, Run]:
    """Return a run of each teacher by its name; different teachers of one name are numbered."""
    distinct: dict[str, dict[Hashable, Run]] = {}
    for run in found:
        if run.metrics.get("teacher"):
            distinct.setdefault(teacher_name(run.config), {}).setdefault(_identity(run), run)
    return {
        name if len(runs) == 1 else f"{name} ({k})": run
        for name, runs in distinct.items()
        for k, run in enumerate(runs.values(), 1)
    }


def _identity(run: Run) -> Hashable:
    """Return what tells the teacher of a run from another: its weights and how it is asked, or else its score.

    The score of one teacher may differ: a method that reads its layers runs it unfolded, which rounds otherwise.
    """
    weights = tuple(file.get("sha256") for file in run.metrics["teacher"].get("weights", []))
    if not weights or None in weights:
        return float(run.metrics["teacher"]["test"]["accuracy"])
    how = {k: v for k, v in run.config.model.items() if str(k).startswith("teacher") and k not in _SAME_DECISIONS}
    fused = str(run.config.loss.get("fusion")) if len(weights) > 1 else ""
    return (*weights, str(how), fused)
