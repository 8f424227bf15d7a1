"""The evaluation of a run, written into its directory: `evaluation.json` and `evaluation_*.png`.

`evaluation.json` holds:

    schema, run, sha256 (of the student's file), samples (as in metrics.json), note
    data {name, kind, classes, sizes}, precision, images (corrupted), device, threads, versions …
    select: the deployed student, `last` or `best`
    student {name, parameters, macs, bytes, latency, last {epoch, test, robustness}, best {…}}
    teacher {name, parameters, macs, bytes, latency, test, robustness}, or null, with the reason as `note`
    latency {"1", "64"}: {median_ms, p95_ms, runs, samples_per_second}; no autocast
    test: what `evaluation.scores.score` returns, for a student with agreement, kl_t1 and kl_t4
    robustness (of images): {clean: [accuracy], noise: [accuracy at strength 1, 2, 3], blur, contrast, jpeg, brightness}

Of several tasks it holds schema, run, sha256, samples, and `tasks`: task → all the rest, with the scores of that task
and its teacher.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from kd_lightning import runs
from kd_lightning.evaluation.collect import collect
from kd_lightning.evaluation.corruptions import CORRUPTIONS
from kd_lightning.evaluation.opened import open_run
from kd_lightning.plots import evaluation as plots
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import never_fatal


def evaluate(path: Path, overrides: Sequence[str] = (), images: int = 1000) -> dict[str, Any]:
    """Measure the run in `path`; write `evaluation.json` and its figures there, and return what it holds.

    Args:
        path: The run directory.
        overrides: `key=value` as typed; see `open_run`.
        images: Number of test images to corrupt; 0 leaves it out.

    Raises:
        UserError: If the run cannot be evaluated, or its directory not be written.
    """
    values = collect(open_run(path, overrides), images)
    try:
        runs.write_evaluation(path, values)
    except OSError as e:
        raise UserError(f"cannot write to {path}: {e.strerror}") from e
    with never_fatal(f"no pictures in {path}"):
        for name, figure in figures(values).items():
            plots.save(figure, path / f"evaluation_{name}.png")
    return values


def figures(values: dict[str, Any]) -> dict[str, Figure]:
    """Return name → figure of what `evaluation.json` holds: of the deployed student, and of its teacher."""
    if "tasks" in values:
        return {f"{task}_{name}": f for task, own in values["tasks"].items() for name, f in figures(own).items()}
    classes = values["data"]["classes"]
    models = {"student": values["student"][values["select"]]}
    if values["teacher"] is not None:
        models["teacher"] = values["teacher"]
    tests = {name: model["test"] for name, model in models.items()}
    drawn = {
        "reliability": plots.reliability_figure(tests),
        "classes": plots.per_class_figure({name: test["per_class"] for name, test in tests.items()}, classes),
        "confusion": plots.confusion_figure({name: test["confusion"] for name, test in tests.items()}, classes),
    }
    if values["images"]:
        accuracies = {name: model["robustness"] for name, model in models.items()}
        axes = {kind: (corruption.unit, corruption.strengths) for kind, corruption in CORRUPTIONS.items()}
        drawn["corruptions"] = plots.corruption_figure(accuracies, axes, values["images"])
    return drawn
