"""Losses and teachers that need labels, against data that lacks some or all of them."""

from collections.abc import Sequence

from kd_lightning.data.module import DataModule
from kd_lightning.losses.distillation import Distillation
from kd_lightning.losses.method import Method
from kd_lightning.losses.tasks import Tasks
from kd_lightning.teachers.opened import TeacherSpec
from kd_lightning.utils.checks import UserError, of_task
from kd_lightning.utils.console import say

FEW = 0.25
"""Below this share of labelled samples, a batch has few of them, and their cross-entropy is noisy."""


def check_labels(loss: Distillation | Tasks, data: DataModule, specs: Sequence[TeacherSpec]) -> None:
    """Raise UserError if no training sample has a label, and the loss or a teacher that is trained here wants some."""
    for task in loss.tasks:
        own, labelled = loss.of(task), data.of(task).labelled
        if labelled is None or len(labelled):
            continue
        with of_task(task):
            check_without_labels(own, [spec for spec in specs if spec.task == task])


def check_without_labels(loss: Distillation, specs: Sequence[TeacherSpec]) -> None:
    """Raise UserError if the loss learns from labels, or one of its teachers would be trained here."""
    if not loss.needs_teacher or loss.method.ce_weight.largest > 0:
        raise UserError(
            "loss: no training sample has a label, and this loss learns from labels; use loss=kd_only, or "
            "another with a teacher and loss.ce_weight=0"
        )
    if any(spec.is_trained_here for spec in specs):
        raise UserError(
            "model.teacher_weights: no training sample has a label, so no teacher can be trained here; give "
            "the weights of one that knows these classes"
        )


def check_unlabeled(loss: Distillation, labelled: int, samples: int) -> None:
    """Raise UserError if the loss reads labels in more places than the cross-entropy, which skips unknown ones."""
    reads = [type(m).__name__ for m in loss.modules() if isinstance(m, Method) and m.needs_labels]
    if loss.fusion.reads_labels:
        reads.append(f"loss.fusion={loss.fusion.fusion}")
    if reads:
        raise UserError(
            f"loss: {samples - labelled} of {samples} training samples have no label, but "
            f"{', '.join(reads)} reads labels; use loss=kd_only, kd_cifar or another"
        )


def tell_few_labels(loss: Distillation, labelled: int, samples: int) -> None:
    """Say what helps where few samples have a label and their cross-entropy has much weight (docs/speech.md)."""
    if 0 < labelled < FEW * samples and loss.method.ce_weight.largest > 0.5:
        say(
            f"labels: {labelled:,} of {samples:,} training samples have one, so a batch's cross-entropy is noisy.\n"
            "        Less weight on it usually helps: loss.ce_weight=0.1, loss=kd_cifar (0.1), loss=kd_only (0).",
            detail=True,
        )
