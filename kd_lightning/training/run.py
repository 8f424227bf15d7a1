"""One run: build everything, get the teacher, fit, test, fill the run directory."""

import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kd_lightning import runs
from kd_lightning.distiller import Distiller
from kd_lightning.models.checkpoints import load_weights
from kd_lightning.runs import claims, names
from kd_lightning.runs.names import student_name, teacher_name
from kd_lightning.runs.students import save_student, weights_file
from kd_lightning.teachers.build import build_teacher
from kd_lightning.teachers.ensemble import Ensemble
from kd_lightning.training.build import Experiment, build_experiment
from kd_lightning.training.calibration import calibrate, calibrate_teacher
from kd_lightning.training.faults import close_loggers, memory_in_one_line, try_pictures
from kd_lightning.training.forecast import Forecast, followed_by
from kd_lightning.training.nonfinite import Diverged
from kd_lightning.training.summary import heading, model_size, result_line, work
from kd_lightning.training.teacher_stage import teacher_folder, trained_teacher
from kd_lightning.training.teachers import check_teacher
from kd_lightning.training.tensorboard import Events
from kd_lightning.training.testing import test
from kd_lightning.training.trainer import build_trainer, is_trial
from kd_lightning.types import Teacher
from kd_lightning.utils import hardware
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say
from kd_lightning.utils.distributed import is_first_rank
from kd_lightning.utils.quiet import quiet


def train(cfg: DictConfig, out: Path, resume: bool = False, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Build every part, so that a mistake stops here; then train, test and fill the run directory `out`.

    Args:
        cfg: The configuration.
        out: The run directory.
        resume: Go on from the last checkpoint in `out`.
        extra: Further entries of `metrics.json`.

    Returns:
        What `metrics.json` holds.

    Raises:
        UserError: For whatever the user can mend.
    """
    quiet()
    experiment = build_experiment(cfg)
    checkpoint = claims.claim(out, cfg, resume)
    try:
        with memory_in_one_line(experiment.data.batch_size):
            return _fit_and_test(cfg, experiment, out, checkpoint, extra or {})
    except UserError as e:
        if isinstance(e, Diverged) and not e.is_recorded:
            e.is_recorded = True
            if is_first_rank():
                runs.write_diverged(out, {"seed": cfg.seed} | e.how)
        elif not resume:
            claims.discard(out)
        raise


def _fit_and_test(
    cfg: DictConfig, run: Experiment, out: Path, checkpoint: Path | None, extra: Mapping[str, Any]
) -> dict[str, Any]:
    say(heading(cfg, run), detail=True)
    own = work(run)
    with followed_by(own):
        teacher, weights = get_teacher(cfg, run)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)  # whatever a teacher's training drew before
    distiller = Distiller(
        run.student,
        teacher,
        run.loss,
        num_classes=run.data.num_classes,
        optimizer=run.optimizer,
        schedule=run.schedule,
    )
    distiller.log_terms = False  # TrainLog does, without waiting for the device
    has_val = run.data.sizes["val"] > 0
    evaluated = run.data.sizes["val"] / run.data.sizes["train"] / run.trainer.check_val_every_n_epoch
    forecast = Forecast(own, evaluated)
    trainer, log = build_trainer(run.trainer, out, has_val, cfg.get("logger"), cfg.get("callbacks"), forecast)
    if run.trainer.accelerator == "gpu":
        hardware.use_tf32()
    temperatures = calibrate_teacher(trainer, teacher, run.data) if teacher and run.calibrate_teacher else None
    if teacher is not None:
        teacher_views = check_teacher(trainer, distiller, run.data, any_will_do=is_trial(run.trainer))
    if run.compile:
        distiller.compile_networks(run.data.batch_size)
    if run.trainer.max_epochs:
        trainer.fit(distiller, run.data, ckpt_path=checkpoint, weights_only=True)
    seconds = log.seconds
    trainer.strategy.barrier()  # the first rank wrote the last checkpoint behind the training's back

    metrics = test(trainer, distiller, run.data, out, run.select)
    metrics["student"] |= model_size([distiller.student], [run.data.example(1)])
    if teacher is not None and not teacher.evaluates:
        metrics["stored_teacher"] = {"train": teacher_views, "weights": [_seen_from(out, path) for path in weights]}
    elif teacher is not None:
        metrics["teacher"] |= model_size(teacher.models, [one.example(run.data, 1) for one in run.teachers])
        metrics["teacher"]["train_views"] = teacher_views
        metrics["teacher"] |= {"temperatures": temperatures} if temperatures else {}
        metrics["teacher"]["weights"] = [_seen_from(out, path) for path in weights]
        if isinstance(teacher, Ensemble) and teacher.fusion.theta is not None:
            metrics["teacher"]["weighting"] = teacher.fusion.theta.softmax(0).tolist()
    metrics |= {"select": run.select, "epochs": trainer.current_epoch, "seconds": seconds, "parts": log.parts}
    metrics |= {"images_per_second": log.mean_speed(), "time_shares": distiller.watch.shares()}
    metrics |= {"seed": cfg.seed, "precision": trainer.precision, "devices": trainer.world_size}
    metrics |= {"compiled": run.compile, "train": log.latest_terms()}
    metrics |= hardware.describe(run.trainer.accelerator)
    metrics |= extra
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        say("fast_dev_run: training, validation and test went through; nothing is kept")
        claims.discard(out)
        return metrics
    if trainer.is_global_zero:
        card = run.card
        if calibrated := calibrate(trainer, distiller, run.data):
            metrics["student"][run.select]["calibrated"] = calibrated
            card = replace(card, extra={**card.extra, "temperature": calibrated["temperature"]})
        _check_scores(metrics, out)
        save_student(out, distiller.student, card)
        runs.write_metrics(out, metrics)
        (out / runs.PREVIOUS).unlink(missing_ok=True)
        test_scores = metrics["student"][run.select]["test"]
        for logger in trainer.loggers[int(isinstance(trainer.logger, Events)) :]:  # HParams have them in TensorBoard
            logger.log_hyperparams(_hparams(cfg, run))
            logger.log_metrics({f"test/{name}": value for name, value in test_scores.items()}, trainer.global_step)
        try_pictures(trainer, distiller, run.data, _hparams(cfg, run), metrics)
    trainer.strategy.barrier()  # another rank may read the run as soon as it returns
    close_loggers(trainer)
    say(result_line(metrics, out, is_teacher=forecast.later > 0))
    return metrics


def _check_scores(metrics: dict[str, Any], out: Path) -> None:
    """Raise Diverged if a student has scores that are no numbers, although its weights are."""
    for name in ("last", "best"):
        student = metrics["student"].get(name, {})
        for split in ("val", "test"):
            if broken := [k for k, v in student.get(split, {}).items() if not math.isfinite(v)]:
                how = {"epoch": student["epoch"], "scores": {k: str(student[split][k]) for k in broken}}
                raise Diverged(f"{out}: {broken[0]} of the {name} student on {split} is not a finite number", how)


def get_teacher(cfg: DictConfig, run: Experiment) -> tuple[Teacher | None, list[Path]]:
    """Return the teacher, trained first if need be, and the files of its weights."""
    if not run.teachers:
        return None, []
    weights = []
    for one in run.teachers:
        path = Path(one.spec.weights)
        if one.spec.is_trained_here and is_trial(run.trainer):
            path = teacher_folder(cfg, one.spec, run.data)
            if not runs.is_finished(path):
                say(f"teacher: {one.spec.name} with its initial weights; a trial trains none")
                continue
            path = weights_file(path, "model.teacher_weights")
            load_weights(one.model, path)
        elif one.spec.is_trained_here:
            path = weights_file(trained_teacher(cfg, one.spec, run.data, train), "model.teacher_weights")
            load_weights(one.model, path)
        weights.append(path)
    teacher = build_teacher(
        run.teachers,
        run.data,
        layers=run.loss.teacher_layers,
        fusion=run.loss.fusion,
        precision=run.trainer.precision,
        cache=run.cache,
        temperatures=[1.0] * len(run.teachers) if run.calibrate_teacher else None,
    )
    return teacher, weights


def _seen_from(out: Path, weights: Path) -> dict[str, str]:
    """Return where weights lie, seen from the run directory, as both may move, and absolute."""
    return {"relative": os.path.relpath(weights, out), "absolute": str(weights.resolve())}


def _hparams(cfg: DictConfig, run: Experiment) -> dict[str, Any]:
    """Return the few columns that tell runs apart in TensorBoard's HParams tab: in a sweep, what it sweeps over."""
    told: dict[str, Any] = {"loss": type(run.loss.method).__name__.lower()}
    choice = HydraConfig.get().runtime.choices.get("loss") if HydraConfig.initialized() else None
    if choice and (told["loss"] == "ce") == (choice == "ce"):  # not the stage of a teacher
        told["loss"] = choice
    if names.sweep:
        for key in names.sweep[0].keys:
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
