"""Batches of samples of similar length: less of a batch is padding."""

import torch
from torch import Tensor

from kd_lightning.data.hashing import random_bits

POOL = 16
"""Batches that are sorted by length together. More of them leave less padding and less chance."""
_BATCHES = 7  # salt: apart from the order of the samples


def bucketed(order: Tensor, lengths: Tensor, batch_size: int, seed: int, epoch: int) -> Tensor:
    """Return the positions `order` `[n]` rearranged, so that each batch has samples of similar length.

    Each 16 batches that follow each other are sorted by length and divided anew, and their order is drawn. A last
    batch that is smaller stays the last one, with its samples.

    Args:
        order: Positions in the split, in the order that was drawn.
        lengths: Length of each sample of the split `[N]`.
        batch_size: Number of samples of a batch.
        seed: With `epoch`, decides the order of the batches.
        epoch: Number of the epoch.
    """
    generator = torch.Generator().manual_seed(random_bits(seed, epoch, _BATCHES))
    whole = len(order) // batch_size * batch_size
    parts = []
    for pool in order[:whole].split(POOL * batch_size):
        batches = pool[lengths[pool].argsort(stable=True)].view(-1, batch_size)
        parts.append(batches[torch.randperm(len(batches), generator=generator)].flatten())
    return torch.cat([*parts, order[whole:]])
