"""Deep mutual learning."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.losses.ce import task_loss
from kd_lightning.losses.functional import kd
from kd_lightning.losses.logit_method import LogitMethod
from kd_lightning.losses.networks import Networks
from kd_lightning.models.hooks import logits_of
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import choice, integer


class DML(LogitMethod):
    """Students of one kind teach each other, without a teacher: each learns from the mean of the others' losses.

    The others, its peers, have initial weights of their own and are trained beside; they stay in the run directory.

    Args:
        students: Number of students, n.
        deploy: `first`, the student itself; or `best`, the one with the best validation accuracy at the end.

    The peers' cross-entropy is one of the method's terms: `alpha` weighs it, not `ce_weight`.

    Matches: logits of the other students
    Formula: `Σ_i [CE(p_i, y) + T²/(n-1) Σ_{j≠i} KL(p_j ‖ p_i)]`
    Paper: Zhang et al. 2018, arXiv 1706.00384, eq. 8
    """

    needs_labels = True

    needs_teacher = False

    def __init__(
        self, temperature: Any = 1.0, students: int = 2, deploy: str = "first", alpha: Any = 1.0, ce_weight: Any = 1.0
    ):
        super().__init__(temperature, alpha, ce_weight)
        self.students = integer("loss.students", students, ge=2)
        self.deploys_best = choice("loss.deploy", deploy, ("first", "best")) == "best"

    def prepare(self, networks: Networks) -> None:
        self._peers = nn.ModuleList(networks.new_student(i) for i in range(1, self.students))

    @property
    def peers(self) -> Sequence[nn.Module]:
        return list(self._peers)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """`student_kd` teaches the student; `peer_ce` and `peer_kd` teach the peers and do not reach the student."""
        peers, t = [logits_of(peer, batch.x) for peer in self._peers], self.temperature()
        everyone = [student.logits, *peers]
        learned = [
            torch.stack([kd(z, other.detach(), t) for other in everyone if other is not z]).mean() for z in everyone
        ]
        return {
            "student_kd": learned[0],
            "peer_kd": torch.stack(learned[1:]).sum(),
            "peer_ce": torch.stack([task_loss(z, batch, smoothing=self.label_smoothing) for z in peers]).sum(),
        }
