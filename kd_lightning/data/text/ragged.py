"""Sentences of any length on the training device: one tensor of all token ids, from which a batch is gathered."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from kd_lightning.data.text.tokens import PADDING, padded
from kd_lightning.types import Batch, Source


class RaggedTokens(Source):
    """One split. A batch is as wide as its longest sentence, rounded up, whatever the seed and the epoch.

    Args:
        rows: Token ids of each sentence.
        labels: int64 `[N]`.
        max_length: Most tokens of a sentence.
        padding: Token id of what fills a batch.
        before: Number of sentences in the splits before this one.
    """

    def __init__(
        self,
        rows: Sequence[Sequence[int]],
        labels: Tensor,
        max_length: int,
        padding: int = PADDING,
        before: int = 0,
    ) -> None:
        self.max_length, self.padding, self.labels, self.before = max_length, padding, labels, before
        self.widths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        """Stays in main memory: it decides the shape of a batch, for which no step should wait."""
        self.tokens = torch.tensor([token for row in rows for token in row], dtype=torch.int32)
        self.lengths, self.starts = self.widths, self.widths.cumsum(0) - self.widths

    def __len__(self) -> int:
        return len(self.widths)

    def to(self, device: torch.device) -> "RaggedTokens":
        """Move the split itself, so that it is held once."""
        self.tokens, self.labels = self.tokens.to(device), self.labels.to(device)
        self.lengths, self.starts = self.lengths.to(device), self.starts.to(device)
        return self

    def batches(self, order: Tensor, batch_size: int, seed: int, epoch: int, device: torch.device) -> Iterator[Batch]:
        """Yield batches as `Source` says; x is `{"ids": int64 [B, L], "mask": bool [B, L]}`, and every view is 0."""
        self.to(device)
        shapes = self.shapes(order, batch_size)
        for index, width in zip(order.to(device).split(batch_size), shapes, strict=False):  # no batch of none
            x = self.inputs(index, width)
            yield Batch(x, self.labels[index], index, torch.zeros_like(index), raw=index + self.before)

    def shapes(self, order: Tensor, batch_size: int) -> list[int]:
        """Return L of each batch, from what lies in main memory."""
        widths = self.widths[order.cpu()].split(batch_size)
        return [padded(int(width.max()), self.max_length) for width in widths if len(width)]

    def inputs(self, index: Tensor, width: int) -> dict[str, Tensor]:
        """Return ids and mask `[B, width]` of the sentences `index` `[B]`, which lies on the device."""
        place = torch.arange(width, device=index.device)
        mask = place < self.lengths[index, None]
        where = (self.starts[index, None] + place).clamp_(max=len(self.tokens) - 1)
        return {"ids": self.tokens[where].long().masked_fill_(~mask, self.padding), "mask": mask}
