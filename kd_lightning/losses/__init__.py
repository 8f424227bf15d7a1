"""Distillation losses: methods `(student, teacher, batch) -> scalar`, which `Distillation` adds to the cross-entropy.

The formulas are in `functional`; a method adds what the formula needs: which layers, parameters, memory, schedules.
"""

from kd_lightning.losses.boundaries import AB, OFD
from kd_lightning.losses.ce import CE
from kd_lightning.losses.combination import Combination
from kd_lightning.losses.crd import CRD
from kd_lightning.losses.ctkd import CTKD
from kd_lightning.losses.distillation import Distillation
from kd_lightning.losses.dml import DML
from kd_lightning.losses.factor import FT
from kd_lightning.losses.fsp import FSP
from kd_lightning.losses.hints import VID, FitNets
from kd_lightning.losses.kd import KD
from kd_lightning.losses.logit_relations import DIST, MLLD
from kd_lightning.losses.logits import DKD, NKD, RLD, WSLD, Hard, TeacherFree
from kd_lightning.losses.maps import NST, Attention
from kd_lightning.losses.relations import CC, PKT, RKD, SP
from kd_lightning.losses.review import ReviewKD
from kd_lightning.losses.simkd import SimKD
from kd_lightning.losses.srrl import SRRL

__all__ = [
    "AB",
    "CC",
    "CE",
    "CRD",
    "CTKD",
    "DIST",
    "DKD",
    "DML",
    "FSP",
    "FT",
    "KD",
    "MLLD",
    "NKD",
    "NST",
    "OFD",
    "PKT",
    "RKD",
    "RLD",
    "SP",
    "SRRL",
    "VID",
    "WSLD",
    "Attention",
    "Combination",
    "Distillation",
    "FitNets",
    "Hard",
    "ReviewKD",
    "SimKD",
    "TeacherFree",
]
