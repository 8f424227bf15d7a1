"""Several teachers that answer together."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kd_lightning.losses.fusion import Fusion
from kd_lightning.types import Batch, Outputs, Teacher


class Ensemble(Teacher):
    """Asks each of its members; what they say together is fused by `fusion`, which the loss may train."""

    def __init__(self, members: Sequence[Teacher], fusion: Fusion):
        self.members = list(members)
        self.fusion = fusion
        self.models: list[nn.Module] = [model for member in members for model in member.models]
        self.fixed = not fusion.learned
        self.evaluates = all(member.evaluates for member in members)
        self.forget_agreement()

    def __call__(self, batch: Batch) -> Outputs:
        return self._fused([member(batch) for member in self.members])

    def evaluate(self, batch: Batch) -> Outputs:
        """Answer an evaluation batch, and count how often the members agree."""
        answer = self._fused([member.evaluate(batch) for member in self.members])
        predicted = torch.stack([member.logits.argmax(1) for member in answer.members])
        self._same += (predicted[:, None] == predicted[None]).sum(2).cpu()
        self._seen += predicted.shape[1]
        return answer

    def _fused(self, answers: Sequence[Outputs]) -> Outputs:
        together = Outputs(answers[0].logits, members=tuple(answers))
        return together._replace(logits=self.fusion.for_evaluation(together))

    def forget_agreement(self) -> None:
        """Count anew how often the members agree."""
        self._same, self._seen = torch.zeros(len(self.members), len(self.members)), 0

    def agreement(self) -> Tensor:
        """Return the share of evaluation samples on which each two members name the same class, `[K, K]`."""
        return self._same / max(self._seen, 1)

    def start_epoch(self, epoch: int) -> None:
        for member in self.members:
            member.start_epoch(epoch)

    def end_epoch(self) -> None:
        for member in self.members:
            member.end_epoch()

    @property
    def seconds_ahead(self) -> float:  # type: ignore[override]
        return sum(member.seconds_ahead for member in self.members)

    def compile(self, batch_size: int) -> None:
        for member in self.members:
            member.compile(batch_size)

    def apply_(self, fn: Callable[[Tensor], Tensor]) -> None:
        for member in self.members:
            member.apply_(fn)
        self.fusion._apply(fn)
