"""Formulas of distillation as pure functions of tensors: the student's first, the teacher's second."""

from kd_lightning.losses.functional.fusion import fuse_logits, fuse_probabilities, mean_loss
from kd_lightning.losses.functional.logits import dkd, kd

__all__ = ["dkd", "fuse_logits", "fuse_probabilities", "kd", "mean_loss"]
