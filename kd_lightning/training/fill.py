"""Filling the teacher cache ahead of a sweep."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from omegaconf import DictConfig

from kd_lightning.data.images.resident import ResidentImages
from kd_lightning.data.module import DataModule
from kd_lightning.runs.names import override, teacher_name
from kd_lightning.teachers.cache.cached import CachedTeacher
from kd_lightning.teachers.stored import NAME
from kd_lightning.teachers.stored_file import check_suffix, write_stored
from kd_lightning.training.asking import faults, one_device, progress_bar
from kd_lightning.training.build import Experiment, build_experiment
from kd_lightning.training.run import get_teacher
from kd_lightning.training.tasks import one_task
from kd_lightning.types import Batch, Teacher
from kd_lightning.utils.checks import UserError, integer
from kd_lightning.utils.console import say
from kd_lightning.utils.files import write_whole
from kd_lightning.utils.quiet import quiet
from kd_lightning.utils.signals import stop_if_asked


def fill(cfg: DictConfig) -> None:
    """Ask every teacher of `cfg` for what its table lacks.

    Of small images without tasks these are all numbered views; of other data, the samples that a run of this
    configuration, with this seed, will show.

    Raises:
        UserError: If nothing can be filled, or the configuration is wrong.
    """
    quiet()
    cfg = one_task(cfg)
    if cfg.model.teacher_cache in ("off", "memory"):
        raise UserError(f"model.teacher_cache={cfg.model.teacher_cache} leaves nothing to fill; use auto or a folder")
    run = replace(build_experiment(cfg), calibrate_teacher=False)  # the table holds what the networks say
    data, epochs = run.data, run.trainer.max_epochs
    teacher, fabric = _open(cfg, run, "fill")
    cached = [one for one in teacher.members or [teacher] if isinstance(one, CachedTeacher)]
    if not cached:
        return  # `auto` has said why there is no table
    samples, source = data.sizes["train"], data.splits["train"]
    if data.num_views is not None and isinstance(source, ResidentImages):
        batches = _every_view(source, data, data.num_views, fabric.device)
        total, what = -(-samples * data.num_views // data.eval_batch_size), f"every view of {samples:,} samples"
    else:
        batches = _every_epoch(data, teacher, epochs, fabric.device)
        total = epochs * -(-samples // data.eval_batch_size)
        what = f"{epochs} epochs of {samples:,} samples with view seed {data.view_seed}"
    with faults(data), progress_bar() as bar, fabric.autocast():
        for batch in bar.track(batches, total=total, description="filling, in batches"):
            stop_if_asked()
            for one in cached:
                one.look_up(batch)
    say(f"in the teacher cache: {what}")


def export(cfg: DictConfig, path: Path, top_k: int | None = None) -> None:
    """Write what the teacher of `cfg` says to every training sample as it is, without augmentation, into a file.

    Several teachers are written as the one that they make together.

    Args:
        cfg: The configuration.
        path: The file; it must not exist.
        top_k: Number of the largest answers to keep for each sample; None for all.

    Raises:
        UserError: If the file cannot be written, or the configuration is wrong.
    """
    quiet()
    cfg = one_task(cfg)
    check_suffix(path, "--export")
    if path.exists():
        raise UserError(f"--export: {path} exists; give another name")
    if not path.absolute().parent.is_dir():
        raise UserError(f"--export: there is no folder {path.absolute().parent}")
    if cfg.model.teacher_weighting == "learned":
        raise UserError("--export: model.teacher_weighting=learned is trained with a student; give numbers, or null")
    built = build_experiment(cfg)
    if built.calibrate_teacher:
        raise UserError("--export: answers are stored as the teacher gives them; leave out model.teacher_calibration")
    if top_k is not None:
        integer("--top-k", top_k, ge=1, le=built.data.num_classes)
    run = replace(built, calibrate_teacher=False, cache=replace(built.cache, place="off"))
    data = run.data
    teacher, fabric = _open(cfg, run, "export")
    everyone, logits = torch.arange(data.sizes["train"]), []
    batches = data.plain_train().batches(everyone, data.eval_batch_size, data.view_seed, 0, fabric.device)
    steps = -(-len(everyone) // data.eval_batch_size)
    with faults(data), progress_bar() as bar, fabric.autocast(), torch.no_grad():
        for batch in bar.track(batches, total=steps, description="asking, in batches"):
            stop_if_asked()
            answer = teacher.evaluate(batch) if teacher.evaluates else teacher(batch)
            logits.append(answer.logits.float().cpu())
    facts: dict[str, Any] = {"classes": list(data.classes), "fingerprint": data.samples_fingerprint()}
    facts["teacher"] = teacher_name(cfg)
    if (names := data.sample_names()) is not None:
        facts["names"] = names
    try:
        write_whole(path, lambda partial: write_stored(partial, torch.cat(logits), facts, top_k), exclusive=True)
    except FileExistsError as e:  # made by somebody meanwhile
        raise UserError(f"--export: {path} exists; give another name") from e
    say(
        f"{path}: answers to {len(everyone):,} training samples; use them with "
        f"model.teacher={NAME} {override('model.teacher_weights', path)} model.teacher_views=center"
    )


def _open(cfg: DictConfig, run: Experiment, verb: str) -> tuple[Teacher, Fabric]:
    """Return the teacher of a run on its device, and the Fabric that has the run's precision."""
    if run.data.tasks:
        raise UserError(
            f"data.task: say which of {', '.join(run.data.tasks)}; {verb} the answers of one task at a time"
        )
    fabric = one_device(run.trainer)
    teacher, _ = get_teacher(cfg, run)
    if teacher is None:
        raise UserError(f"loss: this loss has no teacher, so there is nothing to {verb}; use loss=kd")
    teacher.apply_(lambda tensor: tensor.to(fabric.device))
    return teacher, fabric


def _every_view(images: ResidentImages, data: DataModule, views: int, device: torch.device) -> Iterator[Batch]:
    images.to(device)
    for row in torch.arange(len(images) * views, device=device).split(data.eval_batch_size):
        index, view = row // views, row % views
        yield Batch(images.render(index, view), images.labels[index], index, view)


def _every_epoch(data: DataModule, teacher: Teacher, epochs: int, device: torch.device) -> Iterator[Batch]:
    everyone = torch.arange(data.sizes["train"])
    for epoch in range(epochs):
        teacher.start_epoch(epoch)
        yield from data.splits["train"].batches(everyone, data.eval_batch_size, data.view_seed, epoch, device)
