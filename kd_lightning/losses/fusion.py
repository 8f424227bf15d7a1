"""Fusion of the answers of several teachers into one for a loss."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.losses.functional import fuse_logits, fuse_probabilities
from kd_lightning.losses.functional.fusion import confidence_weights, entropy_weights
from kd_lightning.types import Outputs
from kd_lightning.utils.checks import UserError, choice, number

ROUNDING = 0.01  # of a sum of weights such as 0.33 three times
FUSIONS = ("probabilities", "logits", "losses", "confidence", "entropy")


class Fusion(nn.Module):
    """Fuse K teachers into one, as `loss.fusion` and `model.teacher_weighting` say.

    A run has one object: the loss trains its weights, if they are learned, and the ensemble answers with them.

    Args:
        fusion: `probabilities` (mean of the probabilities softened at T), `logits` (mean of the logits), `losses` (mean
            of the losses), or weights for each sample by `confidence` (from each teacher's cross-entropy on the label,
            CA-MKD, arXiv 2201.00007, eq. 2-3) or by `entropy` (a teacher that is surer counts more).
        weighting: Replaces the equal weights of the first three: K numbers >= 0 that sum to 1, or `learned`: K weights
            trained so that the fused teacher is right on the labels.
        teachers: K.

    Raises:
        UserError: For any other value, or a weighting that the fusion cannot use.
    """

    def __init__(self, fusion: str = "probabilities", weighting: Any = None, teachers: int = 1):
        super().__init__()
        self.fusion = choice("loss.fusion", fusion, FUSIONS)
        self.learned = weighting == "learned"
        fixed = [] if weighting is None or self.learned else _numbers(weighting)
        if (fixed or self.learned) and fusion in ("confidence", "entropy"):
            raise UserError(f"model.teacher_weighting={weighting}: loss.fusion={fusion} finds the weights itself")
        if self.learned and fusion == "losses":
            raise UserError("model.teacher_weighting=learned needs loss.fusion=probabilities or logits, got losses")
        if fixed and len(fixed) != teachers:
            raise UserError(f"model.teacher_weighting has {len(fixed)} weights for {teachers} teachers")
        if fixed and abs(sum(fixed) - 1) > ROUNDING:
            told = ",".join(f"{weight / sum(fixed):.3g}" for weight in fixed)
            raise UserError(f"model.teacher_weighting sums to {sum(fixed):g}, not to 1; in these proportions: [{told}]")
        self.fixed: Tensor | None
        weights = torch.tensor(fixed) / sum(fixed) if fixed else None
        self.register_buffer("fixed", weights, persistent=False)  # on the device already when a step needs it
        self.theta = nn.Parameter(torch.zeros(teachers)) if self.learned else None

    @property
    def reads_labels(self) -> bool:
        """True if the weights of the teachers depend on the labels."""
        return self.fusion == "confidence" or self.learned

    def weights(self, teacher: Outputs, y: Tensor) -> Tensor:
        """Return the weight of each teacher for each sample, `[K, B]`, summing to 1 over the teachers."""
        logits = stacked(teacher)
        if self.fusion == "confidence":
            return confidence_weights(logits, y)
        if self.fusion == "entropy":
            return entropy_weights(logits)
        if self.theta is not None:
            even = self.theta.softmax(0).detach().to(logits)
        else:
            even = logits.new_ones(len(logits)) / len(logits) if self.fixed is None else self.fixed.to(logits)
        return even[:, None].expand(logits.shape[:2])

    def forward(self, teacher: Outputs, y: Tensor, temperature: float | Tensor) -> Tensor:
        """Return logits `[B, C]` that stand for all teachers at temperature T; not for `losses`."""
        return self._fuse(stacked(teacher), temperature, self.weights(teacher, y))

    @torch.no_grad()
    def for_evaluation(self, teacher: Outputs) -> Tensor:
        """Return the logits `[B, C]` of all teachers together without looking at labels, at T = 1.

        `confidence` looks at labels, so the mean of the probabilities stands for it, as for `losses`.
        """
        if self.fusion in ("confidence", "losses") and self.fixed is None:
            return fuse_probabilities(stacked(teacher), 1.0)
        return self(teacher, teacher.members[0].logits.argmax(-1), 1.0)

    def own_loss(self, teacher: Outputs, y: Tensor) -> Tensor | None:
        """Return what trains learned weights: the fused teacher's cross-entropy on the labels at T = 1; else None."""
        if self.theta is None or not teacher.members:
            return None
        logits = stacked(teacher)
        fused = self._fuse(logits, 1.0, self.theta.softmax(0)[:, None].expand(logits.shape[:2]))
        return nn.functional.cross_entropy(fused.float(), y)

    def _fuse(self, logits: Tensor, temperature: float | Tensor, weights: Tensor) -> Tensor:
        if self.fusion == "logits":
            return fuse_logits(logits, weights)
        return fuse_probabilities(logits, temperature, weights)


def stacked(teacher: Outputs) -> Tensor:
    """Return the logits of all teachers, `[K, B, C]`."""
    return torch.stack([member.logits for member in teacher.members])


def _numbers(weighting: Any) -> list[float]:
    if not isinstance(weighting, Sequence) or isinstance(weighting, str):
        raise UserError(f"model.teacher_weighting must be null, learned, or a list of numbers, got {weighting!r}")
    numbers = [number(f"model.teacher_weighting[{i}]", w, ge=0) for i, w in enumerate(weighting)]
    if sum(numbers) == 0:
        raise UserError(f"model.teacher_weighting must have a weight above 0, got {list(weighting)}")
    return numbers
