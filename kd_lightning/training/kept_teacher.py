"""A teacher that was trained before is still the function that it was."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from kd_lightning import runs
from kd_lightning.teachers.opened import TeacherFile, TeacherSpec
from kd_lightning.utils.checks import UserError, of_task
from kd_lightning.utils.names import task_name

CLOSE = 0.02
"""Difference of an accuracy that another precision or machine may make; two samples always may."""
LIMITS = ("limit_val_batches", "overfit_batches", "fast_dev_run")
"""Keys of `trainer` that decide how many validation samples are measured."""


def check_is_as_trained(
    specs: Sequence[TeacherSpec],
    files: Sequence[TeacherFile],
    trainer: DictConfig,
    measured: Mapping[str, Any],
    samples: int,
) -> None:
    """Compare the accuracy of kept teachers with the one that their training ended with.

    The same weights in changed code are another function: a network of the user's own, or one of a library, may have
    the same tensors and another activation.

    Args:
        specs: All teachers.
        files: Those of them that have one.
        trainer: The group `trainer` of the run.
        measured: What the Trainer logged of them on validation samples.
        samples: Number of these.

    Raises:
        UserError: If they differ by more than `CLOSE`.
    """
    for file in files:
        spec, folder = file.spec, file.path.parent
        alone = sum(other.task == spec.task for other in specs) == 1
        if not (spec.is_trained_here and alone and runs.is_finished(folder)):
            continue
        kept = runs.read(folder)
        if any(str(kept.config.trainer.get(key)) != str(trainer.get(key)) for key in LIMITS):  # 1 batch is not 1.0
            continue
        before = kept.student.get("val", {}).get("accuracy")
        now = measured.get(f"val/{task_name(spec.task, 'teacher_accuracy')}")
        if before is not None and now is not None and abs(float(now) - before) > max(CLOSE, 2.5 / samples):
            with of_task(spec.task):
                raise UserError(
                    f"model.teacher: {spec.name} in {folder} was right on {before:.1%} of the validation samples "
                    f"when it was trained, and is on {float(now):.1%}: its code or the data has changed. Delete the "
                    "folder to train it again"
                )
