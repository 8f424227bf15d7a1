"""Several teachers that answer together."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kd_lightning.losses.fusion import Fusion
from kd_lightning.teachers.live import Teacher
from kd_lightning.types import Batch, Outputs


class Ensemble:
    """Stacks the logits of K teachers to `[K, B, C]`, for the loss to fuse; of evaluation batches, fused `[B, C]`.

    `fusion` says how, at T = 1 and without looking at the labels; what comes out is measured as "the teacher".
    """

    def __init__(self, members: Sequence[Teacher], fusion: Fusion | None = None):
        self.members = list(members)
        self.fusion = fusion or Fusion(teachers=len(members))
        self.models: list[nn.Module] = [model for member in members for model in member.models]
        self._same = torch.zeros(len(members), len(members))
        self._seen = 0

    def __call__(self, batch: Batch) -> Outputs:
        return Outputs(torch.stack([member(batch).logits for member in self.members]))

    def evaluate(self, batch: Batch) -> Outputs:
        logits = torch.stack([member.evaluate(batch).logits for member in self.members])
        said = logits.argmax(2)
        self._same += (said[:, None] == said[None]).sum(2).cpu()
        self._seen += said.shape[1]
        return Outputs(self.fusion.for_evaluation(logits))

    def agreement(self) -> Tensor:
        """Share of evaluation samples on which each two teachers name the same class, `[K, K]`."""
        return self._same / max(self._seen, 1)

    def start_epoch(self, epoch: int) -> None:
        for member in self.members:
            member.start_epoch(epoch)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        for member in self.members:
            member.apply_(fn)
