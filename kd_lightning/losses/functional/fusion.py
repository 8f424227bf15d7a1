"""Several teachers as one. Logits `[K, B, C]`: K teachers, B samples, C classes.

The three ways differ: mean of logits ≠ mean of softened probabilities ≠ mean of losses.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kd_lightning.losses.functional._common import full_precision, soften


@full_precision
def fuse_probabilities(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Mean of the softened probabilities, as logits `[B, C]`: `T · ln mean_k softmax(z_k/T)`.

    At the same T their softmax is that mean (Hinton et al. 2015, arXiv 1503.02531, section 5: an arithmetic mean of an
    ensemble's predictions), so every loss of logits can take them. Computed as logsumexp: no probability underflows.
    Raises ValueError unless the logits are `[K, B, C]`, K >= 1, and T > 0.
    """
    _check(logits)
    log_p = torch.log_softmax(soften(logits, temperature), dim=-1)
    return temperature * (log_p.logsumexp(0) - math.log(len(logits)))


@full_precision
def fuse_logits(logits: Tensor) -> Tensor:
    """Mean of the logits `[B, C]`: the normalized geometric mean of the probabilities, whatever T (arXiv 1503.02531).

    Raises ValueError unless the logits are `[K, B, C]`, K >= 1.
    """
    _check(logits)
    return logits.mean(0)


def mean_loss(loss: Callable[[Tensor, Tensor], Tensor], s: Tensor, logits: Tensor) -> Tensor:
    """Mean over the K teachers of `loss(s, z_k)`. Raises ValueError unless the logits are `[K, B, C]`, K >= 1."""
    _check(logits)
    return torch.stack([loss(s, t) for t in logits]).mean()


def _check(logits: Tensor) -> None:
    if logits.dim() != 3 or len(logits) == 0:
        raise ValueError(f"logits of K teachers must be [K, B, C], got {list(logits.shape)}")
