"""Deep mutual learning."""

from typing import Any

from torch import Tensor

from kd_lightning.losses.ce import task_loss
from kd_lightning.losses.functional import kd
from kd_lightning.losses.logit_method import LogitMethod
from kd_lightning.losses.networks import Networks
from kd_lightning.models.hooks import logits_of
from kd_lightning.types import Batch, Outputs


class DML(LogitMethod):
    """Two students teach each other, without a teacher: the peer is another student of the same kind.

    It has initial weights of its own, is trained beside and, like all parameters of a loss, not deployed.

    Matches: logits of a second student
    Formula: `T²·KL(p_peer ‖ p_s) + T²·KL(p_s ‖ p_peer) + CE(p_peer, y)`
    Paper: Zhang et al. 2018, arXiv 1706.00384
    """

    needs_labels = True

    needs_teacher = False

    def __init__(self, temperature: Any = 1.0, alpha: Any = 1.0, ce_weight: Any = 1.0):
        super().__init__(temperature, alpha, ce_weight)

    def prepare(self, networks: Networks) -> None:
        self.peer = networks.new_student()

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """`student_kd` teaches the student; `peer_ce` and `peer_kd` teach the peer and do not reach the student."""
        peer, t = logits_of(self.peer, batch.x), self.temperature()
        return {
            "student_kd": kd(student.logits, peer.detach(), t),
            "peer_kd": kd(peer, student.logits.detach(), t),
            "peer_ce": task_loss(peer, batch, smoothing=self.label_smoothing),
        }
