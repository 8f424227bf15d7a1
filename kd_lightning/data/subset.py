"""Some of the samples of a split."""

from collections.abc import Iterator

import torch
from torch import Tensor

from kd_lightning.types import Batch, Source


class Subset(Source):
    """The samples of `source` at `positions` `[n]`; their `Batch.index` stays the position in `source`."""

    def __init__(self, source: Source, positions: Tensor) -> None:
        self.source, self.positions = source, positions

    def __len__(self) -> int:
        return len(self.positions)

    def batches(self, order: Tensor, batch_size: int, seed: int, epoch: int, device: torch.device) -> Iterator[Batch]:
        return self.source.batches(self.positions[order], batch_size, seed, epoch, device)
