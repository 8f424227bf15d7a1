"""Teachers are measured before they teach: one that knows nothing is refused, with what would help."""

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from kd_lightning.data.loader import train_order
from kd_lightning.data.module import DataModule
from kd_lightning.distiller import Distiller
from kd_lightning.losses.distillation import Distillation
from kd_lightning.metrics import Scores
from kd_lightning.teachers.ensemble import Ensemble
from kd_lightning.teachers.opened import TeacherSpec
from kd_lightning.teachers.scaled import ScaledTeacher
from kd_lightning.teachers.stored import StoredTeacher
from kd_lightning.training.sure_teachers import CALIBRATE, NEARLY_ONE_HOT, wants_temperature
from kd_lightning.types import Teacher
from kd_lightning.utils.checks import UserError, of_task
from kd_lightning.utils.console import say
from kd_lightning.utils.names import task_name

BATCHES = 8
"""Training batches on which a teacher is measured."""
SLIGHT = 0.05
"""Part of the way from chance to 1: a teacher that has not come so far has hardly begun to learn."""
FEW = 100
"""Validation samples below which the measurement itself may be what is wrong."""


def check_teacher(
    trainer: pl.Trainer,
    distiller: Distiller,
    data: DataModule,
    specs: Sequence[TeacherSpec] = (),
    any_will_do: bool = False,
) -> dict[str, float]:
    """Measure the teacher before it teaches, on training views and on validation samples, and tell the result.

    Args:
        trainer: The Trainer of the run.
        distiller: Student, teacher and loss.
        data: Where the samples come from.
        specs: Descriptions of its teachers, for what would help.
        any_will_do: Accept a teacher that knows no more than chance.

    Returns:
        Its accuracy, entropy (nats) and ECE on training views, if these have labels; by task if there are several.

    Raises:
        UserError: If it knows no more than chance.
    """
    assert distiller.teacher is not None
    data.trainer = trainer  # so that its loaders know their rank and device
    seen = _measured(trainer, distiller, data) if distiller.teacher.evaluates else None
    found: dict[str, float] = {}
    for task in distiller.loss.tasks:
        teacher, own = distiller.teacher.of(task), data.of(task)
        if teacher is None:
            continue
        with of_task(task):
            if seen is None or not teacher.evaluates:
                scores = check_stored(teacher, own, any_will_do)
                if scores and wants_temperature(distiller.loss.of(task), scores["entropy"], own.num_classes):
                    say(NEARLY_ONE_HOT, detail=True)
            else:
                needed = [spec for spec in specs if spec.task == task]
                scores = _checked(task, teacher, seen, distiller.loss.of(task), own, needed, any_will_do)
        found |= {task_name(task, name): value for name, value in scores.items()}
    return found


class _Measured(NamedTuple):
    """What the Trainer logged of the teachers; names as in its `callback_metrics`."""

    views: dict[str, float]
    """On training views."""
    samples: int
    """Number of these."""
    val: dict[str, float] | None
    """On validation samples; None if there are none."""


def _measured(trainer: pl.Trainer, distiller: Distiller, data: DataModule) -> _Measured:
    assert distiller.teacher is not None
    few: Any = [
        batch._replace(index=torch.full_like(batch.index, -1))  # of another split: not to be taken for validation's
        for batch in islice(data.train_dataloader(), BATCHES)
    ]
    limit, trainer.limit_val_batches = trainer.limit_val_batches, 1.0  # of these few it would leave nothing
    trainer.validate(distiller, DataLoader(few, batch_size=None), verbose=False)
    trainer.limit_val_batches = limit
    views, count = _logged(trainer), sum(batch.size for batch in few)
    if not data.sizes["val"]:
        return _Measured(views, count, None)
    for task in distiller.loss.tasks:
        if isinstance(teacher := distiller.teacher.of(task), Ensemble):
            teacher.forget_agreement()
    trainer.validate(distiller, data, verbose=False)
    return _Measured(views, count, _logged(trainer))


def _logged(trainer: pl.Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def _checked(
    task: str,
    teacher: Teacher,
    seen: _Measured,
    loss: Distillation,
    data: DataModule,
    specs: Sequence[TeacherSpec],
    any_will_do: bool,
) -> dict[str, float]:
    """Tell and return the scores of the teacher of one task. Raises UserError if it knows no more than chance."""
    names = {name: f"val/{task_name(task, f'teacher_{name}')}" for name in ("accuracy", "entropy", "ece")}
    views = {name: seen.views[logged] for name, logged in names.items()}
    if math.isnan(views["accuracy"]):  # the mean over no labels
        views = {}
    who = f"teacher{f' of {task}' if task else ''}"
    if seen.val is not None:
        accuracy, count, split = seen.val[names["accuracy"]], data.sizes["val"], "validation samples"
    elif views:
        accuracy, count, split = views["accuracy"], seen.samples, "training views"
    else:
        say(f"{who}: not measured before it teaches, as neither training nor validation samples have labels")
        return views
    told = []
    if seen.val is not None:
        told.append(_words({name: seen.val[logged] for name, logged in names.items()}, "validation samples"))
    if views:
        told.append(_words(views, "training views"))
    say("\n         ".join([f"{who}: {told[0]}", *told[1:]]), detail=True)
    if isinstance(teacher, Ensemble):
        say(_diversity(teacher, (seen.val or seen.views)[names["ece"]]), detail=True)
    chance = 1 / data.num_classes
    if not any_will_do and accuracy < least_accuracy(data.num_classes, count):
        raise UserError(
            f"model.teacher_weights: the teacher is right on {accuracy:.1%} of the {count:,} {split}, and chance is "
            f"{chance:.1%}; {_remedy(specs, data)}"
        )
    if views and wants_temperature(loss, views["entropy"], data.num_classes):
        say(NEARLY_ONE_HOT, detail=True)
        if seen.val is not None and not any(isinstance(one, ScaledTeacher) for one in teacher.members or [teacher]):
            say(CALIBRATE, detail=True)
    return views


def _words(scores: Mapping[str, float], where: str) -> str:
    return f"{scores['accuracy']:.2%} right on {where}, entropy {scores['entropy']:.3f} nats, ECE {scores['ece']:.3f}"


def _remedy(specs: Sequence[TeacherSpec], data: DataModule) -> str:
    """Return what helps against a teacher near chance: the one trained here learned too little, another is misread."""
    if not specs or not all(spec.is_trained_here for spec in specs):
        return "check its weights, model.teacher_normalize and the order of its classes"
    ways = ["train it longer (teacher_stage.max_epochs=…)"]
    if any(spec.weights == "auto" for spec in specs) and data.preprocessing().get("kind") == "images":
        ways.append("start it from ImageNet weights (model.teacher_weights=imagenet)")
    if 0 < data.sizes["val"] < FEW:
        ways.append("measure it on more samples (data.val_size)")
    return f"it was trained here and learned too little: {', or '.join(ways)}"


def check_stored(teacher: Teacher, data: DataModule, any_will_do: bool = False) -> dict[str, float]:
    """Measure stored answers on training samples, the only ones that they are of, and tell the result.

    Returns:
        Accuracy, entropy (nats) and ECE of the answers; of several files, of the last one.

    Raises:
        UserError: If a file knows no more than chance, or the pictures that will be shown have no answer.
    """
    scores, told = Scores(data.num_classes), {}
    order = train_order(data.sizes["train"], data.batch_size, data.seed, 0)[: BATCHES * data.batch_size]
    device = data.train_dataloader().device
    few = list(data.splits["train"].batches(order, data.batch_size, data.view_seed, 0, device))
    labels = torch.cat([batch.y.cpu() for batch in few])
    count = int((labels >= 0).sum())
    if not count:
        say("teacher: stored answers, not measured, as the first training samples have no labels", detail=True)
        return {}
    for one in teacher.members or [teacher]:
        if not isinstance(one, StoredTeacher):
            continue
        scores.update(torch.cat([one(batch).logits.cpu() for batch in few]), None, labels)
        told = {name: value for name, value in scores.compute().items() if name in ("accuracy", "entropy", "ece")}
        say(
            f"teacher: stored answers, {told['accuracy']:.2%} right on training samples; their entropy is "
            f"{told['entropy']:.3f} nats, their ECE {told['ece']:.3f}\n"
            "         They are of training samples only: the teacher has no scores on validation and test",
            detail=True,
        )
        if not any_will_do and told["accuracy"] < least_accuracy(data.num_classes, count):
            raise UserError(
                f"model.teacher_weights: the stored answers are right on {told['accuracy']:.1%} of the training "
                f"samples, and chance is {1 / data.num_classes:.1%}; check the order of their rows (index) and of "
                "their classes (model.teacher_classes)"
            )
    return told


def least_accuracy(classes: int, count: int) -> float:
    """Return the accuracy on `count` samples below which a teacher knows nothing, or too little to teach."""
    chance = 1 / classes
    luck = 3 * (chance * (1 - chance) / count) ** 0.5
    return chance + min(max(luck, SLIGHT * (1 - chance)), (1 - chance) / 2)


def _diversity(teachers: Ensemble, ece: float) -> str:
    """Return how the fused teachers are calibrated, and how often each two of them name the same class."""
    same = teachers.agreement()
    pairs = [f"{i} and {j} {same[i, j]:.2%}" for i in range(len(same)) for j in range(i)]
    return f"         fused: ECE {ece:.3f}; same answer of teachers {', '.join(pairs)}"
