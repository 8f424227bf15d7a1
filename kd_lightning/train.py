"""Train a student. `python -m kd_lightning.train model.teacher=resnet50 loss.temperature=4`."""

import math
import os
import sys
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import hydra
import lightning.pytorch as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from torch.utils.data import DataLoader

from kd_lightning import runs
from kd_lightning.cli import clear_errors, fail
from kd_lightning.config import CONF_DIR
from kd_lightning.distiller import Distiller
from kd_lightning.evaluation.found import weights_seen_from
from kd_lightning.runs import claims
from kd_lightning.runs.lock import Busy, alone
from kd_lightning.teachers import Ensemble, Teacher
from kd_lightning.teachers.build import build_teacher, image_sizes
from kd_lightning.training.build import Parts, about_student, build_parts, build_trainer
from kd_lightning.training.objective import prepare_loss
from kd_lightning.training.pictures import log_pictures
from kd_lightning.training.summary import diversity, heading, model_size, result_line, result_table
from kd_lightning.utils import hardware
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say
from kd_lightning.utils.distributed import repeat_this_job_only
from kd_lightning.utils.quiet import quiet


def train(cfg: DictConfig, out: Path, resume: bool = False) -> dict[str, Any]:
    """Builds every part, so that a mistake stops here; then trains, tests and fills the run directory `out`.

    Returns what `metrics.json` holds. `resume` goes on from the last checkpoint in `out`. Raises UserError for
    whatever the user can mend.
    """
    quiet()
    parts = build_parts(cfg)
    prepare = partial(prepare_loss, cfg, parts.loss, parts.student, data=parts.data)
    get_teacher = None
    if parts.loss.needs_teacher:
        get_teacher = build_teacher(cfg, parts.data, parts.trainer, prepare, train)
    else:
        prepare(None)
    if cfg.compile is True and (parts.loss.student_layers or parts.loss.teacher_layers):
        raise UserError("compile=true: this loss reads layers inside the networks, which compiling hides; use auto")
    checkpoint = claims.claim(out, cfg, resume)
    try:
        return _fit_and_test(cfg, parts, get_teacher, out, checkpoint)
    except UserError:
        if not resume:
            claims.discard(out)
        raise


def _fit_and_test(
    cfg: DictConfig, parts: Parts, get_teacher: Callable[[], Teacher] | None, out: Path, checkpoint: Path | None
) -> dict[str, Any]:
    say(heading(cfg, parts))
    teacher = get_teacher() if get_teacher else None
    pl.seed_everything(cfg.seed, workers=True, verbose=False)  # whatever a teacher's training drew before
    distiller = Distiller(parts.student, teacher, parts.loss, parts.optimizer, parts.schedule, parts.data.num_classes)
    trainer, log = build_trainer(parts.trainer, out, has_val=parts.data.sizes["val"] > 0)
    if teacher is not None:
        _check_teacher(trainer, distiller, parts.data)
    compiled = parts.compile and not (parts.loss.student_layers or parts.loss.teacher_layers)
    if compiled:
        distiller.compile_networks(parts.data.batch_size)
    if parts.trainer.accelerator == "gpu":
        hardware.use_tf32()
    try:
        if parts.trainer.max_epochs:
            trainer.fit(distiller, parts.data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:  # Lightning's answer to Ctrl-C
        say(f"interrupted; go on with: python -m kd_lightning.train resume={out}")
        raise
    seconds = log.seconds
    trainer.strategy.barrier()  # the first rank wrote the last checkpoint behind the training's back

    metrics = _test(trainer, distiller, parts.data, out)
    metrics["student"] |= model_size([distiller.student], [parts.data.image_size])
    if teacher is not None:
        metrics["teacher"] |= model_size(teacher.models, image_sizes(cfg, parts.data))
        metrics["teacher"]["weights"] = weights_seen_from(out, cfg, parts.data)
    metrics |= {"epochs": trainer.current_epoch, "seconds": seconds, "parts": log.parts}
    metrics |= {"images_per_second": log.mean_speed(), "time_shares": distiller.watch.shares()}
    metrics |= {"seed": cfg.seed, "precision": trainer.precision, "devices": trainer.world_size}
    metrics["compiled"] = compiled
    metrics["train"] = log.latest_terms()
    metrics |= hardware.describe(parts.trainer.accelerator)
    if trainer.is_global_zero:
        runs.save_student(out, distiller.student, about_student(cfg, parts.data, distiller.student))
        runs.write_metrics(out, metrics)
        log_pictures(trainer, distiller, parts.data, cfg, metrics)
    trainer.strategy.barrier()  # another rank may read the run as soon as it returns
    say(result_line(metrics, out))
    return metrics


def _check_teacher(trainer: pl.Trainer, distiller: Distiller, data: Any) -> None:
    """Measures the teacher before it teaches. Raises UserError if it knows no more than chance."""
    split = "validation" if data.sizes["val"] else "training"
    if data.sizes["val"]:
        trainer.validate(distiller, data, verbose=False)  # through `data`, whose loaders then know their rank
    else:
        few: Any = list(islice(data.train_dataloader(), 8))
        trainer.validate(distiller, DataLoader(few, batch_size=None), verbose=False)
    accuracy = float(trainer.callback_metrics["val/teacher_accuracy"])
    say(f"teacher: {accuracy:.2%} right on {split} images")
    if isinstance(distiller.teacher, Ensemble):
        say(diversity(distiller.teacher, float(trainer.callback_metrics["val/teacher_ece"])))
    chance, count = 1 / data.num_classes, data.sizes["val"] or 8 * data.batch_size
    if accuracy < chance + min(3 * (chance * (1 - chance) / count) ** 0.5, (1 - chance) / 2):
        raise UserError(
            f"model.teacher_weights: the teacher is right on {accuracy:.1%} of the {split} images, and chance is "
            f"{chance:.1%}; check its weights, model.teacher_normalize and the order of its classes"
        )


def _test(trainer: pl.Trainer, distiller: Distiller, data: Any, out: Path) -> dict[str, Any]:
    """Reads the test set, here and once: for the last student and the best on validation, whose weights then stay."""
    student: dict[str, Any] = {}
    teacher: dict[str, Any] = {}
    for name, file in (("last", runs.LAST), ("best", runs.BEST)):
        if (out / file).is_file():
            epoch = runs.load_checkpoint(distiller, out / file)
        elif name == "last" and not trainer.max_epochs:
            epoch = 0  # `model.student_weights` as they are
        else:
            continue
        student[name] = {"epoch": epoch}
        if data.sizes["val"]:
            trainer.validate(distiller, data, verbose=False)
            student[name]["val"], teacher["val"] = _scores(trainer, "val/")
        trainer.test(distiller, data, verbose=False)
        student[name]["test"], teacher["test"] = _scores(trainer, "test/")
    return {"student": student} | ({} if distiller.teacher is None else {"teacher": teacher})


def _scores(trainer: pl.Trainer, prefix: str) -> tuple[dict[str, float], dict[str, float]]:
    """The student's scores of the evaluation just done, and its teacher's."""
    scores = {k.removeprefix(prefix): float(v) for k, v in trainer.callback_metrics.items() if k.startswith(prefix)}
    teacher = {k: v for k, v in scores.items() if k.startswith("teacher_")}
    student = {k: v for k, v in scores.items() if k not in teacher}
    return student, {k.removeprefix("teacher_"): v for k, v in teacher.items()}


def _train_or_go_on(cfg: DictConfig, run: Any, out: Path) -> tuple[dict[str, Any], DictConfig]:
    """Trains a new run, goes on with one that was stopped, or takes one that is finished; metrics and configuration."""
    resume = cfg.resume is not None
    if resume:
        if run.mode != RunMode.RUN:
            raise UserError("resume goes on with one run; leave out -m and what makes a sweep")
        cfg = claims.resumed_config(Path(cfg.resume), list(run.overrides.task))
    elif run.mode == RunMode.MULTIRUN and claims.holds(out, cfg):  # the same sweep, once more
        if runs.is_finished(out):
            say(f"finished before, not run again: {out}")
            return runs.read(out).metrics, cfg
        resume = True
    with repeat_this_job_only(out):
        return train(cfg, out, resume), cfg


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")
def _main(cfg: DictConfig) -> float:
    run = HydraConfig.get()
    out = Path(os.path.relpath(run.runtime.output_dir))
    try:
        with alone(out):
            metrics, cfg = _train_or_go_on(cfg, run, out)
    except (UserError, OmegaConfBaseException) as e:
        claims.discard_if_empty(out)
        if isinstance(e, Busy) and run.mode == RunMode.MULTIRUN:  # the same sweep twice at once: they share its runs
            say(f"not started here: {e}")
            return math.nan
        status = fail(e)
        if run.mode == RunMode.RUN:
            raise SystemExit(status) from e  # not through Hydra, which would print its own words too
        raise  # the sweep goes on with its other jobs, and ends with this error
    if run.mode == RunMode.RUN:
        say(result_table(cfg, metrics, out))
    return _selected_accuracy(metrics)


def _selected_accuracy(metrics: dict[str, Any]) -> float:
    """What a sweeper may optimize: on validation, where there is any."""
    student = metrics["student"].get("best", metrics["student"]["last"])
    return float(student.get("val", student["test"])["accuracy"])


def main() -> None:
    """The console script `kd-train`."""
    with clear_errors():
        # argparse takes no flag between overrides, where people write `-m` and `--config-dir`
        sys.argv[1:] = sorted(sys.argv[1:], key=lambda arg: "=" in arg and not arg.startswith("-"))
        resume = next((arg.partition("=")[2] for arg in sys.argv[1:] if arg.startswith("resume=")), "")
        if resume not in ("", "null"):  # the same folder again, before Hydra makes a new one
            runs.read_config(Path(resume))
            sys.argv.append(f"hydra.run.dir={resume}")
        _main()


if __name__ == "__main__":
    main()
