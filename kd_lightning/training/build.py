"""Everything a run needs, built and checked before anything is trained. Configuration ends here."""

import copy
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

from kd_lightning.config import build
from kd_lightning.data.loader import smallest_batch
from kd_lightning.data.module import MAX_SEED, DataModule
from kd_lightning.distiller import Optimizer, Schedule
from kd_lightning.losses.distillation import Distillation
from kd_lightning.losses.tasks import Tasks
from kd_lightning.models import create_model
from kd_lightning.models.checkpoints import load_weights
from kd_lightning.models.hooks import logits_of
from kd_lightning.models.layout import DescribesItself
from kd_lightning.runs.command import Command
from kd_lightning.runs.names import override
from kd_lightning.runs.students import weights_file
from kd_lightning.teachers.cache.storage import CacheSpec
from kd_lightning.teachers.opened import OpenedTeacher, open_teachers
from kd_lightning.teachers.stored import NAME
from kd_lightning.training.extras import check_extras
from kd_lightning.training.label_checks import check_labels
from kd_lightning.training.named_by_teacher import name_held_out
from kd_lightning.training.objective import build_loss, prepare_loss
from kd_lightning.training.optimizer import build_optimizer, can_fuse
from kd_lightning.training.tasks import model_of
from kd_lightning.training.teacher_stage import check_stage
from kd_lightning.training.teachers import task_specs
from kd_lightning.training.trainer import check_limits, is_trial, num_processes, resolve_trainer, steps_of_epoch
from kd_lightning.types import StudentCard
from kd_lightning.utils import hardware
from kd_lightning.utils.checks import UserError, choice, integer


@dataclass(frozen=True)
class Experiment:
    """The pieces of one run."""

    data: DataModule
    student: nn.Module
    card: StudentCard
    """Description of the network that is deployed."""
    loss: Distillation | Tasks
    teachers: tuple[OpenedTeacher, ...]
    """Empty if the loss needs none."""
    calibrate_teacher: bool
    """Divide each teacher's logits by a temperature fitted on validation samples."""
    cache: CacheSpec
    optimizer: Optimizer
    schedule: Schedule
    steps: int
    """Optimizer steps of an epoch."""
    trainer: DictConfig
    """The `trainer` group with accelerator, devices and precision resolved for this machine."""
    compile: str | None
    """Torch's mode of compiling; None to run the networks as they are."""
    select: str
    """The student that is deployed and compared: `last` or `best`."""


def build_experiment(cfg: DictConfig) -> Experiment:
    """Build and check all pieces, cheap checks first. Raises UserError for whatever the user can mend."""
    integer("seed", cfg.seed, ge=0, le=MAX_SEED)
    choice("select", cfg.select, ("last", "best"))
    weights = cfg.model.student_weights
    trainer = resolve_trainer(cfg.trainer, least_epochs=0 if weights else 1)
    check_extras(cfg, trainer.accelerator)
    place = str(cfg.model.teacher_cache)
    if is_trial(trainer) or place.lower() == "false":  # which yaml makes of a plain off
        place = "off"
    cache = CacheSpec(place, cfg.model.teacher_cache_dtype, trainer.max_epochs)
    data: DataModule = build(cfg.data, "data")
    loss = build_loss(cfg.loss, cfg.model, tuple(data.tasks))
    specs = task_specs(cfg.model, [task for task in loss.tasks if loss.of(task).needs_teacher], loss.tasks)
    processes = num_processes(trainer)
    shares = processes * trainer.accumulate_grad_batches
    data.share_batch(shares)
    batch = data.batch_size * shares
    optimizer, schedule = build_optimizer(
        cfg.optimizer, cfg.scheduler, max(1, trainer.max_epochs), batch, fused=can_fuse(trainer)
    )
    name_held_out(data, loss, specs, trainer)
    data.prepare_data()
    data.setup()
    check_labels(loss, data, specs)
    if not loss.needs_teacher:
        data.drop_unlabeled()
    check_batch(loss, data, processes)
    check_limits(trainer, data)
    check_search(data)
    student, card = _student(cfg.model, data, cfg.seed)
    check_single(student, data, processes)
    if str(cfg.trainer.precision) == "auto" and trainer.accelerator == "cpu" and _is_depthwise(student):
        trainer.precision = "32-true"  # in bf16 a CPU takes up to twice as long for the gradients of such convolutions
    teachers = open_teachers(specs, data)
    prepare_loss(loss, student, teachers, data, card, cfg.seed)
    for spec in specs:
        if spec.is_trained_here:
            check_stage(cfg, spec, data)
    steps = trainer.max_epochs * data.sizes["train"] / batch
    compile = hardware.resolve_compile(cfg.compile, trainer.accelerator, steps)
    reads_layers = bool(loss.student_layers or loss.teacher_layers)
    if cfg.compile in (True, hardware.GRAPHS) and reads_layers:
        raise UserError(
            f"compile={str(cfg.compile).lower()}: this loss reads layers inside the networks, which compiling hides; "
            "use auto"
        )
    calibrated = [_calibrates(model_of(cfg.model, task, loss.tasks), data) for task in loss.tasks]  # checks each
    return Experiment(
        data,
        student,
        loss.wrap_card(card),
        loss,
        teachers,
        any(calibrated),
        cache,
        optimizer,
        schedule,
        steps_of_epoch(trainer, data),
        trainer,
        None if reads_layers else compile,
        cfg.select if data.sizes["val"] and trainer.max_epochs else "last",
    )


def _student(model: DictConfig, data: DataModule, seed: int) -> tuple[nn.Module, StudentCard]:
    """Return the student with its initial weights, the same for the same seed whatever the loss, and its card."""
    kwargs: Any = OmegaConf.to_container(model.student_kwargs, resolve=True)
    facts = data.model_kwargs()
    if needs := data.keys_for(model.student):
        words = " ".join(override(f"data.{key}", value) for key, value in needs.items())
        raise UserError(f"model.student={model.student} prepares its inputs by itself: write {words}")
    pl.seed_everything(seed, workers=True, verbose=False)
    key = "model.student" + ", model.student_pretrained=true" * model.student_pretrained
    student = create_model(model.student, kwargs=kwargs, pretrained=model.student_pretrained, key=key, **facts)
    if model.student_weights:
        load_weights(student, weights_file(model.student_weights, "model.student_weights"), "model.student_weights")
    if isinstance(student, DescribesItself):
        kwargs = student.card_kwargs
    card = StudentCard(model.student, kwargs, list(data.classes), facts, data.preprocessing())
    return student.to(memory_format=torch.channels_last), card


def _is_depthwise(network: nn.Module) -> bool:
    return any(isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1 for m in network.modules())


def _calibrates(model: DictConfig, data: DataModule) -> bool:
    choice("model.teacher_calibration", model.teacher_calibration, (None, "temperature"))
    if model.teacher_calibration and not data.sizes["val"]:
        raise UserError("model.teacher_calibration=temperature is fitted on validation samples; set data.val_size")
    names = model.teacher if isinstance(model.teacher, ListConfig) else [model.teacher]
    if model.teacher_calibration and NAME in names:
        raise UserError(
            "model.teacher_calibration=temperature is fitted on validation samples, and model.teacher=stored has no "
            "answers to them; leave it out"
        )
    return model.teacher_calibration is not None


def check_batch(loss: Distillation | Tasks, data: DataModule, processes: int) -> None:
    """Raise UserError if some batch would be smaller than the method needs to compare samples with each other."""
    smallest = smallest_batch(data.sizes["train"], data.batch_size, processes)
    if smallest < loss.least_batch:
        last = "" if smallest == data.batch_size else f", of which the last of an epoch has {smallest}"
        raise UserError(
            f"data.batch_size: {loss.name} compares samples with each other and needs "
            f"{loss.least_batch} or more in each batch, got {data.sizes['train']} samples in batches of "
            f"{data.batch_size}{last}"
        )


def check_search(data: DataModule) -> None:
    """Raise UserError if a sweeper searches by validation accuracy, and the data have no validation samples."""
    sweep = Command().sweep
    if sweep is not None and sweep.runs is None and not data.sizes["val"]:
        raise UserError("hydra/sweeper: a search chooses by validation accuracy; set data.val_size above 0")


def check_single(student: nn.Module, data: DataModule, processes: int) -> None:
    """Raise UserError if some batch has one sample and the student cannot train on it, as BatchNorm on one pixel."""
    if smallest_batch(data.sizes["train"], data.batch_size, processes) > 1:
        return
    try:
        with torch.no_grad():
            logits_of(copy.deepcopy(student).train(), data.example(1))
    except ValueError as e:
        raise UserError(
            f"data.batch_size: the student cannot train on a batch of one sample ({e}); use 2 or more"
        ) from e
