"""Distillation losses: modules `(student, teacher, batch) -> {"loss": …, part: …}`, formulas in `functional`.

Every loss says `needs_teacher` and which `student_layers` and `teacher_layers` it wants the activations of.
"""

from kd_lightning.losses.ce import CE
from kd_lightning.losses.kd import KD

__all__ = ["CE", "KD"]
