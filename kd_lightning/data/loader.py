"""Order of the samples on each rank, and the loader that goes on with an interrupted epoch.

N samples in the split, W ranks, G = batch_size · W samples in a global batch.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.bucket import bucketed
from kd_lightning.data.hashing import random_bits
from kd_lightning.types import Batch, Source


def train_order(n: int, batch_size: int, seed: int, epoch: int, rank: int = 0, world_size: int = 1) -> Tensor:
    """Return the positions that a rank visits in an epoch, in batches of `batch_size`; a pure function.

    Global batch k is `perm[k·G : (k+1)·G]` of one permutation per epoch, of which the rank takes every W-th. A last
    batch that would leave a rank with a single sample is dropped: BatchNorm cannot train on one value.
    """
    generator = torch.Generator().manual_seed(random_bits(seed, epoch))
    perm = torch.randperm(n, generator=generator)
    rest = n % (batch_size * world_size)
    if rest // world_size < min(2, batch_size):
        perm = perm[: n - rest]
    return perm[rank::world_size]


def smallest_batch(n: int, batch_size: int, world_size: int = 1) -> int:
    """Return the smallest batch that `train_order` ever gives a rank."""
    rest = n % (batch_size * world_size) // world_size
    return batch_size if rest < min(2, batch_size) else rest


def batches_of_epoch(n: int, batch_size: int, world_size: int = 1) -> int:
    """Return the number of batches that `train_order` gives each rank."""
    rest = n % (batch_size * world_size) // world_size
    return n // (batch_size * world_size) + (rest >= min(2, batch_size))


def eval_order(n: int, rank: int = 0, world_size: int = 1) -> Tensor:
    """Return every W-th position: no sample comes twice, so ranks may differ in length by one."""
    return torch.arange(n)[rank::world_size]


class Loader:
    """Iterable over `Batch`es of a source, for a Lightning trainer or without one (rank 0 of 1, on the CPU).

    Lightning calls `state_dict` and `load_state_dict`: an interrupted epoch goes on with its next batch.

    Attributes:
        epoch: Set it to choose the epoch yourself; None takes the trainer's, or 0 without a trainer.
    """

    def __init__(
        self,
        source: Source,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        view_seed: int | None = None,
        trainer: Any = None,
        lengths: Tensor | None = None,
    ) -> None:
        self.source, self.batch_size, self.shuffle, self.trainer = source, batch_size, shuffle, trainer
        self.seed, self.view_seed = seed, seed if view_seed is None else view_seed
        self.lengths = lengths
        """Length of each sample `[N]`, if a shuffled batch shall have similar ones."""
        self.epoch: int | None = None
        self._position: dict[str, int] = {"epoch": 0, "batch": 0}
        self._resume: dict[str, int] | None = None

    @property
    def device(self) -> torch.device:
        """Device of the batches: the trainer's CUDA device, else the CPU."""
        root = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        return root if root.type == "cuda" else torch.device("cpu")

    def order(self, epoch: int) -> Tensor:
        """Positions in the split that this rank visits in `epoch`, `[n]`."""
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        if self.shuffle:
            order = train_order(len(self.source), self.batch_size, self.seed, epoch, rank, world_size)
            if self.lengths is None:
                return order
            return bucketed(order, self.lengths, self.batch_size, self.seed, epoch)
        return eval_order(len(self.source), rank, world_size)

    def __len__(self) -> int:
        return -(-len(self.order(0)) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        # A generator runs at the first `next`: Lightning asks for the iterator before it has restored the epoch.
        repeats = self.trainer is None or self.trainer.overfit_batches  # the same samples and views again
        trainer_epoch = 0 if repeats else self.trainer.current_epoch
        epoch = trainer_epoch if self.epoch is None else self.epoch
        resume, self._resume = self._resume, None
        done = resume["batch"] if resume and resume["epoch"] == epoch else 0
        order = self.order(epoch)[done * self.batch_size :]
        for batch in self.source.batches(order, self.batch_size, self.view_seed, epoch, self.device):
            done += 1
            self._position = {"epoch": epoch, "batch": done}
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches were handed out."""
        return dict(self._position)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Make the next pass, if it is of the same epoch, go on after those batches; another epoch starts anew."""
        self._resume = dict(state)
