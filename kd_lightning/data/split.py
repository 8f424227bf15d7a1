"""Fixed stratified splits: which samples are held out is a function of the labels and a seed of its own."""

import torch
from torch import Tensor

from kd_lightning.data.hashing import random_bits


def stratified(labels: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Takes `size` of the samples with labels `[N]`, each class in its proportion; returns positions (rest, taken).

    Both ascending. Class counts are exact to one sample. Uses no library generator: the split outlives versions.
    """
    n = len(labels)
    counts = torch.bincount(labels)
    share = counts * size // n
    remainder = (counts * size) % n
    largest = torch.argsort(remainder, descending=True, stable=True)
    share[largest[: size - int(share.sum())]] += 1
    shuffled = torch.argsort(random_bits(seed, torch.arange(n)), stable=True)
    taken = torch.zeros(n, dtype=torch.bool)
    for label, k in enumerate(share.tolist()):
        taken[shuffled[labels[shuffled] == label][:k]] = True
    return torch.nonzero(~taken).flatten(), torch.nonzero(taken).flatten()
