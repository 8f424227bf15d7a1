"""Where a teacher comes from (`weights`, `stage`) and how it answers (`live`)."""

from kd_lightning.teachers.ensemble import Ensemble
from kd_lightning.teachers.live import LiveTeacher, Teacher

__all__ = ["Ensemble", "LiveTeacher", "Teacher"]
