"""The loader: which samples come in which order, on which rank, and where an interrupted epoch goes on.

N samples in the split, W ranks, G = batch_size · W samples in a global batch.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from kd_lightning.data.hashing import random_bits
from kd_lightning.types import Batch


class Source(Protocol):
    """Where the samples of a split are; draws the batches of a given order."""

    def __len__(self) -> int: ...

    def batches(self, order: Tensor, batch_size: int, seed: int, epoch: int, device: torch.device) -> Iterator[Batch]:
        """Batches on `device` of the samples `order` `[n]` (positions in the split), the last one maybe smaller."""


def train_order(n: int, batch_size: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1) -> Tensor:
    """Positions that a rank visits in an epoch, in batches of `batch_size`, a pure function of the arguments.

    Global batch k is `perm[k·G : (k+1)·G]` of one permutation per epoch, of which the rank takes every W-th. A last
    batch that would leave a rank with a single sample is dropped: BatchNorm cannot train on one value.
    """
    generator = torch.Generator().manual_seed(int(random_bits(seed, epoch)))
    perm = torch.randperm(n, generator=generator)
    rest = n % (batch_size * world_size)
    if rest // world_size < min(2, batch_size):
        perm = perm[: n - rest]
    return perm[rank::world_size]


def smallest_batch(n: int, batch_size: int, world_size: int = 1) -> int:
    """The fewest samples that `train_order` ever gives a rank at once."""
    rest = n % (batch_size * world_size) // world_size
    return batch_size if rest < min(2, batch_size) else rest


def eval_order(n: int, rank: int = 0, world_size: int = 1) -> Tensor:
    """Every W-th position: no sample twice, so ranks may differ in length by one."""
    return torch.arange(n)[rank::world_size]


class Loader:
    """Iterable over `Batch`es of a source, for a Lightning trainer or without one (rank 0 of 1, on the CPU).

    `epoch`: set it to choose the epoch yourself; None takes the trainer's, or 0 without a trainer.
    `state_dict` and `load_state_dict` are called by Lightning: an interrupted epoch goes on with its next batch.
    """

    def __init__(self, source: Source, batch_size: int, *, shuffle: bool, seed: int = 0, trainer: Any = None) -> None:
        self.source, self.batch_size, self.shuffle, self.seed, self.trainer = source, batch_size, shuffle, seed, trainer
        self.epoch: int | None = None
        self._position: dict[str, int] = {"epoch": 0, "batch": 0}
        self._resume: dict[str, int] | None = None

    @property
    def device(self) -> torch.device:
        """Where batches are made: on the trainer's CUDA device, else on the CPU."""
        root = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        return root if root.type == "cuda" else torch.device("cpu")

    def order(self, epoch: int) -> Tensor:
        """Positions in the split that this rank visits in `epoch`, `[n]`."""
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        if self.shuffle:
            return train_order(len(self.source), self.batch_size, self.seed, epoch, rank, world_size)
        return eval_order(len(self.source), rank, world_size)

    def __len__(self) -> int:
        return -(-len(self.order(0)) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator runs at the first `next`: Lightning asks for the iterator before it has restored the epoch.
        trainer_epoch = 0 if self.trainer is None else self.trainer.current_epoch
        epoch = trainer_epoch if self.epoch is None else self.epoch
        resume, self._resume = self._resume, None
        done = resume["batch"] if resume and resume["epoch"] == epoch else 0
        order = self.order(epoch)[done * self.batch_size :]
        for batch in self.source.batches(order, self.batch_size, self.seed, epoch, self.device):
            done += 1
            self._position = {"epoch": epoch, "batch": done}
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch and how many of its batches were handed out."""
        return dict(self._position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Makes the next pass, if it is of the same epoch, go on after those batches; another epoch starts anew."""
        self._resume = dict(state)
