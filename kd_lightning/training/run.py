"""One run: build everything, get the teacher, fit, test, fill the run directory."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from omegaconf import DictConfig

from kd_lightning import runs
from kd_lightning.distiller import Distiller
from kd_lightning.models.checkpoints import load_weights
from kd_lightning.runs import claims
from kd_lightning.runs.students import weights_file
from kd_lightning.teachers.build import build_task_teachers
from kd_lightning.teachers.exported import weights_checksum
from kd_lightning.teachers.opened import PUBLISHED, TeacherFile
from kd_lightning.training.build import Experiment, build_experiment
from kd_lightning.training.calibration import calibrate_teacher
from kd_lightning.training.checkpoints import check_origin
from kd_lightning.training.faults import (
    close_loggers,
    lost_worker_in_one_line,
    memory_in_one_line,
    refusal_in_one_line,
)
from kd_lightning.training.forecast import Forecast, followed_by
from kd_lightning.training.kept_teacher import check_is_as_trained
from kd_lightning.training.named_by_teacher import check_labels_file
from kd_lightning.training.nonfinite import Diverged
from kd_lightning.training.record import Taught, keep, run_metrics, teacher_metrics
from kd_lightning.training.summary import heading, model_size, result_line, work
from kd_lightning.training.sure_teachers import GAINED, too_sure
from kd_lightning.training.teacher_check import check_teacher
from kd_lightning.training.teacher_stage import teacher_folder, trained_teacher
from kd_lightning.training.testing import test
from kd_lightning.training.trainer import build_trainer, is_trial
from kd_lightning.types import Teacher
from kd_lightning.utils import hardware
from kd_lightning.utils.checks import LostProcess, UserError
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
    if resume:
        check_labels_file(cfg)
    experiment = build_experiment(cfg)
    checkpoint = claims.claim(out, cfg, resume)
    try:
        with (
            lost_worker_in_one_line(),
            refusal_in_one_line(),
            memory_in_one_line(experiment.data.batch_size),
            ExitStack() as after,
        ):
            return _fit_and_test(cfg, experiment, out, checkpoint, extra or {}, after)
    except UserError as e:
        if isinstance(e, Diverged) and not e.is_recorded:
            e.is_recorded = True
            if is_first_rank():
                runs.write_diverged(out, {"seed": cfg.seed} | e.how)
        elif not resume and (is_trial(experiment.trainer) or not isinstance(e, LostProcess)):  # that one can go on
            claims.discard(out)
        raise


def _fit_and_test(
    cfg: DictConfig,
    run: Experiment,
    out: Path,
    checkpoint: Path | None,
    extra: Mapping[str, Any],
    after: ExitStack,
) -> dict[str, Any]:
    say(heading(cfg, run), detail=True)
    own = work(run)
    with followed_by(own):
        teacher, files = get_teacher(cfg, run, goes_on=checkpoint is not None)
    sums = [file.sha256 for file in files]
    origin = {
        "the SHA-256 of the teacher's weights": sums,
        "the number of samples": dict(run.data.sizes),
        "the fingerprint of data.labels": run.data.labels_fingerprint(),
        "the number of steps of an epoch": run.steps,  # by which the schedule counts
    }
    if checkpoint is not None and not is_trial(run.trainer):
        check_origin(checkpoint, origin)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)  # whatever a teacher's training drew before
    distiller = Distiller(
        run.student,
        teacher,
        run.loss,
        num_classes=run.data.tasks or run.data.num_classes,
        optimizer=run.optimizer,
        schedule=run.schedule,
    )
    distiller.log_terms = False  # TrainLog does, without waiting for the device
    has_val = run.data.sizes["val"] > 0
    evaluated = run.data.sizes["val"] / run.data.sizes["train"] / (run.trainer.get("check_val_every_n_epoch") or 1)
    forecast = Forecast(own, evaluated, run.data.cheaper)
    has_buffers = any(True for _ in distiller.buffers())
    trainer, log = build_trainer(
        run.trainer, out, has_val, cfg.get("logger"), cfg.get("callbacks"), forecast, has_buffers, origin
    )
    # also if it fails: the next run of a sweep has loggers of its own
    after.push(lambda kind, *_: close_loggers(trainer, failed=kind is not None))
    if run.trainer.accelerator == "gpu":
        hardware.use_tf32()
    taught = None if teacher is None else _measured(teacher, files, trainer, distiller, run)
    if run.compile:
        distiller.compile_networks(run.data.batch_size, run.compile)
    if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        runs.go_on(out, cfg)
    if run.trainer.max_epochs:
        trainer.fit(distiller, run.data, ckpt_path=checkpoint, weights_only=True)
    seconds = log.seconds
    trainer.strategy.barrier()  # the first rank wrote the last checkpoint behind the training's back

    metrics = test(trainer, distiller, run.data, out, run.select)
    if run.select not in metrics["student"]:
        say("no epoch was validated, so that none is the best: the student of the last one is deployed")
        run = replace(run, select="last")
    metrics["student"] |= model_size([distiller.student], [run.data.example(1)])
    if taught is not None:
        key = "teacher" if taught.teacher.evaluates else "stored_teacher"
        metrics[key] = metrics.get(key, {}) | teacher_metrics(taught, run, out)
    metrics |= {"seed": cfg.seed, "seconds": seconds} | run_metrics(trainer, distiller, run, log) | dict(extra)
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        say("fast_dev_run: training, validation and test went through; nothing is kept")
        claims.discard(out)
        return metrics
    if trainer.is_global_zero:
        keep(trainer, distiller, cfg, run, out, metrics)
    trainer.strategy.barrier()  # another rank may read the run as soon as it returns
    say(result_line(metrics, out, is_teacher=forecast.later > 0))
    if taught is not None and too_sure(run.loss, taught.views, run.data):
        say(GAINED, detail=True)
    return metrics


def _measured(
    teacher: Teacher, files: Sequence[TeacherFile], trainer: pl.Trainer, distiller: Distiller, run: Experiment
) -> Taught:
    """Calibrate the teacher if asked for, and measure it before it teaches. Raises UserError if it is unfit."""
    temperatures = calibrate_teacher(trainer, teacher, run.data, run.loss.tasks) if run.calibrate_teacher else None
    specs = [one.spec for one in run.teachers]
    views = check_teacher(trainer, distiller, run.data, specs, any_will_do=is_trial(run.trainer))
    if count := run.data.sizes["val"]:
        check_is_as_trained(specs, files, run.trainer, trainer.callback_metrics, count)
    return Taught(teacher, files, views, temperatures)


def get_teacher(cfg: DictConfig, run: Experiment, goes_on: bool = False) -> tuple[Teacher | None, list[TeacherFile]]:
    """Return the teacher, trained first if need be, and the files of its weights.

    Raises:
        UserError: If it would be trained although the run `goes_on`, so that another one taught it before.
    """
    if not run.teachers:
        return None, []
    files = []
    for one in run.teachers:
        if one.spec.weights == PUBLISHED:
            continue
        path = Path(one.spec.weights)
        if one.spec.is_trained_here and is_trial(run.trainer):
            path = teacher_folder(cfg, one.spec, run.data)
            if not runs.is_finished(path):
                say(f"teacher: {one.spec.name} with its initial weights; a trial trains none")
                continue
            path = weights_file(path, "model.teacher_weights")
            load_weights(one.model, path)
        elif one.spec.is_trained_here:
            if goes_on and not runs.is_finished(path := teacher_folder(cfg, one.spec, run.data)):
                raise UserError(
                    f"resume: no teacher is kept in {path}; name the one that taught with model.teacher_weights=PATH "
                    "(trainer.max_steps, max_time, devices and accumulate_grad_batches belong to a teacher's name)"
                )
            path = weights_file(trained_teacher(cfg, one.spec, run.data, train), "model.teacher_weights")
            load_weights(one.model, path)
        files.append(TeacherFile(one.spec, path, weights_checksum(path)))
    teacher = build_task_teachers(
        run.teachers,
        run.data,
        {task: run.loss.of(task).fusion for task in run.loss.tasks},
        layers={task: run.loss.of(task).teacher_layers for task in run.loss.tasks},
        precision=run.trainer.precision,
        cache=run.cache,
        temperatures=[1.0] * len(run.teachers) if run.calibrate_teacher else None,
    )
    return teacher, files
