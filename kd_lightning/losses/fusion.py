"""How several teachers become one for a loss: `[K, B, C]` logits of K teachers to `[B, C]`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kd_lightning.losses.functional import fuse_logits, fuse_probabilities
from kd_lightning.losses.functional.fusion import confidence_weights, entropy_weights
from kd_lightning.utils.checks import UserError, choice, number

FUSIONS = ("probabilities", "logits", "losses", "confidence", "entropy")


class Fusion(nn.Module):
    """`probabilities` (the mean, softened at T), `logits`, `losses`, or weights sample by sample: `confidence`, of each
    teacher's cross-entropy on the label (CA-MKD, arXiv 2201.00007, eq. 2–3), `entropy`, of how sure it is.

    `weighting` replaces the equal weights of the first three: K numbers >= 0, or `learned`: K weights trained to make
    the fused teacher right on the labels, apart from the student. Raises UserError for anything else.
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
        self.fixed = torch.tensor(fixed) / sum(fixed) if fixed else None
        if fixed and len(fixed) != teachers:
            raise UserError(f"model.teacher_weighting has {len(fixed)} weights for {teachers} teachers")
        self.theta = nn.Parameter(torch.zeros(teachers)) if self.learned else None

    def weights(self, logits: Tensor, y: Tensor) -> Tensor:
        """Of each teacher for each sample, `[K, B]`, summing to 1 over the teachers."""
        if self.fusion == "confidence":
            return confidence_weights(logits, y)
        if self.fusion == "entropy":
            return entropy_weights(logits)
        if self.theta is not None:
            even = self.theta.softmax(0).detach().to(logits)
        else:
            even = logits.new_ones(len(logits)) / len(logits) if self.fixed is None else self.fixed.to(logits)
        return even[:, None].expand(logits.shape[:2])

    def forward(self, logits: Tensor, y: Tensor, temperature: float | Tensor) -> Tensor:
        """Logits `[B, C]` that stand for the K teachers `[K, B, C]` at temperature T; not for `losses`."""
        weights = self.weights(logits, y)
        return (
            fuse_logits(logits, weights)
            if self.fusion == "logits"
            else fuse_probabilities(logits, temperature, weights)
        )

    def for_evaluation(self, logits: Tensor) -> Tensor:
        """The fused teacher as one asks it without knowing the label, at T = 1: logits `[B, C]`.

        `confidence` looks at labels, so that there the mean of the probabilities stands for it, as for `losses`.
        """
        if self.fusion in ("confidence", "losses") and self.fixed is None:
            return fuse_probabilities(logits, 1.0)
        return self(logits, logits.argmax(-1)[0], 1.0)

    def own_loss(self, logits: Tensor, y: Tensor) -> Tensor | None:
        """What teaches learned weights: the fused teacher's cross-entropy on the labels, T = 1; None for others."""
        if self.theta is None:
            return None
        weights = self.theta.softmax(0)[:, None].expand(logits.shape[:2])
        fused = fuse_logits(logits, weights) if self.fusion == "logits" else fuse_probabilities(logits, 1.0, weights)
        return nn.functional.cross_entropy(fused.float(), y)


def _numbers(weighting: Any) -> list[float]:
    if not isinstance(weighting, Sequence) or isinstance(weighting, str):
        raise UserError(f"model.teacher_weighting must be null, learned, or a list of numbers, got {weighting!r}")
    numbers = [number(f"model.teacher_weighting[{i}]", w, least=0) for i, w in enumerate(weighting)]
    if sum(numbers) == 0:
        raise UserError(f"model.teacher_weighting must have a weight above 0, got {list(weighting)}")
    return numbers
