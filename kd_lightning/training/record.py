"""The record of a run: its metrics, and the files that stay in its run directory."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kd_lightning import runs
from kd_lightning.distiller import Distiller
from kd_lightning.runs.command import Command
from kd_lightning.runs.names import student_name, teacher_name
from kd_lightning.runs.students import PEER, save_student
from kd_lightning.teachers.ensemble import Ensemble
from kd_lightning.teachers.opened import TeacherFile
from kd_lightning.training.build import Experiment
from kd_lightning.training.calibration import calibrate
from kd_lightning.training.nonfinite import Diverged
from kd_lightning.training.pictures import try_pictures
from kd_lightning.training.summary import model_size
from kd_lightning.training.tensorboard import Events
from kd_lightning.training.train_log import TrainLog
from kd_lightning.types import Teacher, whole
from kd_lightning.utils import hardware


@dataclass(frozen=True)
class Taught:
    """The teacher of a run, and what is known of it before it teaches."""

    teacher: Teacher
    files: Sequence[TeacherFile]
    """Where the weights lie; of published networks, and of those with initial weights in a trial, there is none."""
    views: Mapping[str, float]
    """Scores on training views."""
    temperatures: Sequence[float] | None
    """Fitted temperature of each network; None if they are not calibrated."""


def teacher_metrics(taught: Taught, run: Experiment, out: Path) -> dict[str, Any]:
    """Return what `metrics.json` holds of the teacher besides its scores on validation and test."""
    weights = [
        _seen_from(out, file.path) | {"sha256": file.sha256} | ({"task": file.spec.task} if file.spec.task else {})
        for file in taught.files
    ]
    if not taught.teacher.evaluates:
        return {"train": dict(taught.views), "weights": weights}
    values: dict[str, Any] = dict(
        model_size(taught.teacher.models, [t.example(run.data, 1) for t in run.teachers if t.has_network])
    )
    values |= {"train_views": dict(taught.views), "weights": weights}
    if taught.temperatures:
        values["temperatures"] = list(taught.temperatures)
    each = {task: taught.teacher.of(task) for task in run.loss.tasks}
    learned = {
        task: one.fusion.theta.softmax(0).tolist()
        for task, one in each.items()
        if isinstance(one, Ensemble) and one.fusion.theta is not None
    }
    if learned:
        values["weighting"] = whole(learned)
    return values


def run_metrics(trainer: pl.Trainer, distiller: Distiller, run: Experiment, log: TrainLog) -> dict[str, Any]:
    """Return budget, speed, machine and versions of a training."""
    known = run.data.labelled
    return {
        "select": run.select,
        "epochs": trainer.current_epoch,
        "images_seen": log.images_seen,
        "labels": run.data.sizes["train"] if known is None else len(known),
        "samples": run.data.samples_fingerprint(),
        "labels_fingerprint": run.data.labels_fingerprint(),
        "parts": log.parts,
        "images_per_second": log.mean_speed(),
        "time_shares": distiller.watch.shares(),
        "precision": trainer.precision,
        "devices": trainer.world_size,
        "compiled": run.compile is not None,
        "train": log.latest_terms(),
    } | hardware.describe(run.trainer.accelerator)


def keep(
    trainer: pl.Trainer, distiller: Distiller, cfg: DictConfig, run: Experiment, out: Path, metrics: dict[str, Any]
) -> None:
    """Calibrate the deployed student, and write its weights, `metrics.json` and the last entries of the loggers.

    Raises:
        Diverged: If a score is no finite number.
    """
    card, student = run.card, metrics["student"][run.select]
    if calibrated := calibrate(trainer, distiller, run.data):
        student["calibrated"] = calibrated
        card = replace(card, extra={**card.extra, "temperature": calibrated["temperature"]})
    _check_scores(metrics, out)
    save_student(out, distiller.student, card)
    for number, peer in enumerate(distiller.loss.peers, 1):
        save_student(out, peer, run.card, PEER.format(number))
    runs.write_metrics(out, metrics)
    (out / runs.PREVIOUS).unlink(missing_ok=True)
    hparams = hyperparameters(cfg, run)
    for logger in trainer.loggers[int(isinstance(trainer.logger, Events)) :]:  # TensorBoard has them under HParams
        logger.log_hyperparams(hparams)
        logger.log_metrics({f"test/{name}": value for name, value in student["test"].items()}, trainer.global_step)
    try_pictures(trainer, distiller, run.data, hparams, metrics)


def _check_scores(metrics: dict[str, Any], out: Path) -> None:
    """Raise Diverged if a student has scores that are no numbers, although its weights are."""
    for name in ("last", "best"):
        student = metrics["student"].get(name, {})
        for split in ("val", "test"):
            if broken := [k for k, v in student.get(split, {}).items() if not math.isfinite(v)]:
                how = {"epoch": student["epoch"], "scores": {k: str(student[split][k]) for k in broken}}
                raise Diverged(f"{out}: {broken[0]} of the {name} student on {split} is not a finite number", how)


def _seen_from(out: Path, weights: Path) -> dict[str, str]:
    """Return where weights lie, seen from the run directory, as both may move, and absolute."""
    return {"relative": os.path.relpath(weights, out), "absolute": str(weights.resolve())}


def hyperparameters(cfg: DictConfig, run: Experiment) -> dict[str, Any]:
    """Return the few columns that tell runs apart in TensorBoard's HParams tab: in a sweep, what it sweeps over."""
    told: dict[str, Any] = {"loss": run.loss.name.lower()}
    choice = HydraConfig.get().runtime.choices.get("loss") if HydraConfig.initialized() else None
    if choice and (told["loss"] == "ce") == (choice == "ce"):  # not the stage of a teacher
        told["loss"] = choice
    if sweep := Command().sweep:
        for key in sweep.keys:
            value = OmegaConf.select(cfg, key)
            if key != "loss" and value is not None and not OmegaConf.is_config(value):
                told[key.rpartition(".")[2] if key.startswith("loss.") else key] = value
        return told | {"seed": cfg.seed}
    told |= {key: cfg.loss[key] for key in ("temperature", "alpha") if isinstance(cfg.loss.get(key), (int, float))}
    told["student"] = student_name(cfg.model.student, cfg.model.student_kwargs)
    if run.teachers:
        told["teacher"] = teacher_name(cfg)
    told |= {"seed": cfg.seed, "lr": cfg.optimizer.get("lr"), "epochs": run.trainer.max_epochs, "data": run.data.name}
    return told
