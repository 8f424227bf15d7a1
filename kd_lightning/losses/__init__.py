"""Distillation losses: each `Method` computes a term, which `Distillation` adds to the cross-entropy on the labels.

The formulas are in `functional`; a method adds what its formula needs: layers, parameters, memory, schedules.
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
from kd_lightning.losses.fusion import Fusion
from kd_lightning.losses.hints import VID, FitNets
from kd_lightning.losses.kd import KD
from kd_lightning.losses.logit_relations import DIST, MLLD
from kd_lightning.losses.logits import DKD, NKD, RLD, WSLD, Hard, TeacherFree
from kd_lightning.losses.maps import NST, Attention
from kd_lightning.losses.method import Method
from kd_lightning.losses.networks import Networks
from kd_lightning.losses.relations import CC, PKT, RKD, SP
from kd_lightning.losses.review import ReviewKD
from kd_lightning.losses.schedule import Schedule
from kd_lightning.losses.simkd import SimKD
from kd_lightning.losses.srrl import SRRL
from kd_lightning.losses.tasks import Tasks
