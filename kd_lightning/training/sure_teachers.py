"""Teachers that are nearly sure of every training image say little more than the labels; what to tell of them."""

import math
from collections.abc import Mapping

import torch

from kd_lightning.data.module import DataModule
from kd_lightning.losses.distillation import Distillation
from kd_lightning.losses.tasks import Tasks
from kd_lightning.utils.names import task_name

ONE_HOT = 0.02
"""Below this share of the largest entropy, ln C, a teacher's answers are nearly one-hot."""
NEARLY_ONE_HOT = (
    "         It is nearly one-hot on the training images: at T = 1 its answers say little more than the labels.\n"
    "         A higher temperature and more weight on the teacher help: loss=kd_cifar (T 4, 0.9 of the loss)."
)
CALIBRATE = "         model.teacher_calibration=temperature helps the student's probabilities, not its accuracy."
GAINED = (
    "The teacher is nearly one-hot on the training images. With such a teacher, loss=kd_cifar (0.1·CE + 0.9·T²·KL, T 4)"
    "\ngained 2.7 points over plain training (ResNet-8 on CIFAR-10, docs/results.md)."
)
"""Told at the end of a run with such a teacher and a low temperature; as measured, docs/results.md."""


def too_sure(loss: Distillation | Tasks, views: Mapping[str, float], data: DataModule) -> bool:
    """Return whether the teacher of a task is nearly one-hot, and its loss softens nothing; see `wants_temperature`.

    Args:
        loss: The loss of the run.
        views: What `check_teacher` returned; stored answers of several files may have no entropy.
        data: The data set.
    """
    entropies = {task: views.get(task_name(task, "entropy")) for task in loss.tasks}
    return any(
        entropy is not None and wants_temperature(loss.of(task), entropy, data.of(task).num_classes)
        for task, entropy in entropies.items()
    )


def wants_temperature(loss: Distillation, entropy: float, classes: int) -> bool:
    """Return whether a teacher of that entropy (nats) is nearly one-hot, and the loss reads its logits below T 4."""
    softened = bool(loss.teacher_layers) or float(torch.as_tensor(loss.method.temperature()).detach()) >= 4
    return entropy < ONE_HOT * math.log(classes) and not softened
