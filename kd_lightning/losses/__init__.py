"""Distillation losses: methods `(student, teacher, batch) -> scalar`, which `Distillation` adds to the cross-entropy.

The formulas are in `functional`; a method adds what the formula needs: which layers, parameters, memory, schedules.
"""

from kd_lightning.losses.ce import CE
from kd_lightning.losses.combination import Combination
from kd_lightning.losses.ctkd import CTKD
from kd_lightning.losses.distillation import Distillation
from kd_lightning.losses.kd import KD
from kd_lightning.losses.logit_relations import DIST, MLLD
from kd_lightning.losses.logits import DKD, NKD, RLD, WSLD, Hard, TeacherFree

__all__ = [
    "CE",
    "CTKD",
    "DIST",
    "DKD",
    "KD",
    "MLLD",
    "NKD",
    "RLD",
    "WSLD",
    "Combination",
    "Distillation",
    "Hard",
    "TeacherFree",
]
