"""All that can be said of finished runs. `python -m kd_lightning.evaluate RUN … [data.root=…]`.

Writes `evaluation.json` and `evaluation_*.png` into each run directory. `evaluation.json`:

    schema, run, note, data {name, classes, sizes}, precision, images (of robustness), device, threads, versions …
    student {name, parameters, macs, bytes, latency, best {epoch, test, robustness}, last {…}}
    teacher {name, parameters, macs, bytes, latency, test, robustness}, or null, with the reason as `note`
    latency {"1", "64"}: {median_ms, p95_ms, runs, images_per_second}; no autocast
    test: what `evaluation.scores.score` returns, for a student with agreement, kl_t1 and kl_t4
    robustness: {clean: [accuracy], noise: [accuracy at strength 1, 2, 3], blur, contrast, jpeg, brightness}
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from kd_lightning import runs
from kd_lightning.cli import clear_errors, fail
from kd_lightning.evaluation.collect import measure
from kd_lightning.evaluation.opened import open_subject
from kd_lightning.evaluation.table import evaluation_table
from kd_lightning.evaluation.verify import Verification, verify, verify_all
from kd_lightning.plots import evaluation as figures
from kd_lightning.utils.checks import UserError, integer
from kd_lightning.utils.console import say
from kd_lightning.utils.quiet import quiet

__all__ = ["Verification", "evaluate", "pictures", "verify"]

IMAGES = 1000  # of the test set, for each of 15 corruptions: a standard error below 1.6 points


def evaluate(path: Path, overrides: Iterable[str] = (), images: int = IMAGES) -> dict[str, Any]:
    """Measures the run in `path`; writes `evaluation.json` and its pictures there, and returns what it holds.

    `images` test images are corrupted (0: leave it out). Raises UserError for what the user can mend.
    """
    subject = open_subject(path, list(overrides))
    if subject.note:
        say(subject.note)
    values = measure(subject, images)
    try:
        runs.write_evaluation(path, values)
        for name, figure in pictures(values).items():
            figures.save(figure, path / f"evaluation_{name}.png")
    except OSError as e:
        raise UserError(f"cannot write to {path}: {e.strerror}") from e
    return values


def pictures(values: dict[str, Any]) -> dict[str, Figure]:
    """Name → picture, of what `evaluation.json` holds: the best student (or the last), and its teacher."""
    student, classes = values["student"], values["data"]["classes"]
    models = {"student": student.get("best", student.get("last"))}
    if values["teacher"] is not None:
        models["teacher"] = values["teacher"]
    tests = {name: model["test"] for name, model in models.items()}
    drawn = {
        "reliability": figures.reliability_figure(tests),
        "classes": figures.per_class_figure({name: test["per_class"] for name, test in tests.items()}, classes),
        "confusion": figures.confusion_figure({name: test["confusion"] for name, test in tests.items()}, classes),
    }
    if values["images"]:
        accuracies = {name: model["robustness"] for name, model in models.items()}
        drawn["corruptions"] = figures.corruption_figure(accuracies, values["images"])
    return drawn


def expand(words: list[str]) -> tuple[list[Path], list[str]]:
    """Run directories (a folder stands for the finished runs below it) and overrides `key=value`, as typed.

    Raises UserError if there is no run.
    """
    overrides = [word for word in words if "=" in word and not Path(word).exists()]
    paths: list[Path] = []
    for folder in (Path(word) for word in words if word not in overrides):
        below = [] if (folder / runs.CONFIG).is_file() else [p for p in runs.below(folder) if runs.is_finished(p)]
        paths += below or [folder]
    if not paths:
        raise UserError("give run directories, such as outputs/train/<run>, or folders of them")
    return paths, overrides


def main() -> None:
    """Exit status 0; 1 if a run does not reproduce (`--verify`); 2 if one could not be evaluated; others are done."""
    parser = argparse.ArgumentParser(prog="python -m kd_lightning.evaluate", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run directory; also data=NAME, data.root=…, …")
    parser.add_argument(
        "--images", type=int, default=IMAGES, help="test images to corrupt (default %(default)s; 0: none)"
    )
    parser.add_argument(
        "--verify", action="store_true", help="only check that metrics.json's test numbers come out again"
    )
    args = parser.parse_intermixed_args()
    with clear_errors():
        quiet()
        integer("--images", args.images, least=0)
        paths, overrides = expand(args.runs)
        status = verify_all(paths, overrides) if args.verify else _evaluate_all(paths, overrides, args.images)
    sys.exit(status)


def _evaluate_all(paths: list[Path], overrides: list[str], images: int) -> int:
    status = 0
    for path in paths:
        try:
            say(evaluation_table(evaluate(path, overrides, images)))
            say(f"written: {path / runs.EVALUATION}, and pictures {path}/evaluation_*.png")
        except UserError as e:
            status = fail(e)
    return status


if __name__ == "__main__":
    main()
