"""Fixed stratified splits: the samples that are held out are a function of the labels and a seed of its own."""

import torch
from torch import Tensor

from kd_lightning.data.hashing import random_bits
from kd_lightning.types import UNLABELED

_LABELS = 5  # salt: apart from the choice of the samples that are held out


def stratified(labels: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Take `size` of the samples with labels `[N]`, each class in its proportion (exact to one sample).

    Returns:
        Positions (rest, taken), both ascending.
    """
    n, counts = len(labels), torch.bincount(labels)
    share = counts * size // n
    largest_remainders = torch.argsort(counts * size % n, descending=True, stable=True)
    share[largest_remainders[: size - int(share.sum())]] += 1
    return take(labels, share, seed)


def stratified_fraction(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Take a fraction of every class, rounded, but at least one sample; return positions (rest, taken)."""
    share = (torch.bincount(labels) * fraction).round().long().clamp(min=1)
    return take(labels, share, seed)


def hide_labels(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Return `labels` `[N]` with `UNLABELED` outside a fraction of every class, chosen by `seed`."""
    others, _ = stratified_fraction(labels, fraction, random_bits(seed, _LABELS))
    return labels.index_fill(0, others, UNLABELED)


def take(labels: Tensor, share: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Take `share[c]` samples of every class c, chosen by `seed`; return positions (rest, taken), both ascending.

    It uses no generator of a library, so that the split outlives versions. A larger share includes the smaller one.
    """
    shuffled = torch.argsort(random_bits(seed, torch.arange(len(labels))), stable=True)
    taken = torch.zeros(len(labels), dtype=torch.bool)
    for label, k in enumerate(share.tolist()):
        taken[shuffled[labels[shuffled] == label][:k]] = True
    return torch.nonzero(~taken).flatten(), torch.nonzero(taken).flatten()
