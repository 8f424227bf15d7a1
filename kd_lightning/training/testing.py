"""The tests at the end of a run: the test set is read here, once for each student."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import nn

from kd_lightning import runs
from kd_lightning.data.module import DataModule
from kd_lightning.distiller import Distiller
from kd_lightning.runs.students import load_checkpoint


def test(trainer: pl.Trainer, distiller: Distiller, data: DataModule, out: Path, select: str) -> dict[str, Any]:
    """Score the last student and the best on validation; the weights of the one that `select` names then stay.

    Returns:
        `student`: for `last` and `best` (where validation chose one) the `epoch`, and scores on `val` and `test`;
        `teacher`: its scores on both, if there is one.
    """
    files = {"last": runs.LAST, "best": runs.BEST}
    student: dict[str, Any] = {}
    teacher: dict[str, Any] = {}
    for name in sorted(files, key=lambda name: name == select):
        if (out / files[name]).is_file():
            epoch = load_checkpoint(distiller, out / files[name])
        elif name == "last" and (not trainer.max_epochs or trainer.fast_dev_run):  # type: ignore[attr-defined]
            epoch = trainer.current_epoch  # the weights as they are
        else:
            continue
        student[name] = {"epoch": epoch}
        if name == select and data.sizes["val"] and distiller.loss.peers and distiller.loss.deploys_best:
            student[name]["cohort"] = deploy_best(trainer, distiller, data)
        if data.sizes["val"]:
            trainer.validate(distiller, data, verbose=False)
            student[name]["val"], teacher["val"] = _scores(trainer, "val/")
        trainer.test(distiller, data, verbose=False)
        student[name]["test"], teacher["test"] = _scores(trainer, "test/")
    student = {name: student[name] for name in files if name in student}
    evaluated = distiller.teacher is not None and distiller.teacher.evaluates
    return {"student": student} | ({"teacher": teacher} if evaluated else {})


def deploy_best(trainer: pl.Trainer, distiller: Distiller, data: DataModule) -> list[float]:
    """Let the student and that one of its peers that is best on validation change places.

    Returns:
        Validation accuracy of all of them, that of the one that is now the student first.
    """
    cohort: list[nn.Module] = [distiller.student, *distiller.loss.peers]
    states = [{key: value.clone() for key, value in one.state_dict().items()} for one in cohort]
    accuracies = []
    for state in states:
        distiller.student.load_state_dict(state)
        trainer.validate(distiller, data, verbose=False)
        accuracies.append(float(trainer.callback_metrics["val/accuracy"]))
    best = max(range(len(cohort)), key=accuracies.__getitem__)
    states[0], states[best] = states[best], states[0]
    accuracies[0], accuracies[best] = accuracies[best], accuracies[0]
    for one, state in zip(cohort, states, strict=True):
        one.load_state_dict(state)
    return accuracies


def _scores(trainer: pl.Trainer, prefix: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the student's scores of the evaluation just done, and its teacher's."""
    scores = {k.removeprefix(prefix): float(v) for k, v in trainer.callback_metrics.items() if k.startswith(prefix)}
    teacher = {k: v for k, v in scores.items() if k.rpartition("/")[2].startswith("teacher_")}
    student = {k: v for k, v in scores.items() if k not in teacher}
    return student, {k.replace("teacher_", "", 1): v for k, v in teacher.items()}
