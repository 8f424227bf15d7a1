"""Several teachers as one. Logits `[K, B, C]`: K teachers, B samples, C classes.

The three ways differ: mean of logits ≠ mean of softened probabilities ≠ mean of losses.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kd_lightning.losses.functional._common import full_precision, soften


@full_precision
def fuse_probabilities(logits: Tensor, temperature: float | Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean of the softened probabilities as logits `[B, C]`: `T · ln Σ_k w_k·softmax(z_k/T)`.

    w is `[K, B]` or 1/K. At the same T their softmax is that mean (Hinton et al. 2015, arXiv 1503.02531, section 5: an
    arithmetic mean of an ensemble's predictions), so every loss of logits can take them. Computed as logsumexp: no
    probability underflows. Raises ValueError unless the logits are `[K, B, C]`, K >= 1, and T > 0.
    """
    _check(logits)
    log_p = torch.log_softmax(soften(logits, temperature), dim=-1)
    log_w = -math.log(len(logits)) if weights is None else weights.clamp(min=1e-12).log()[..., None]
    return temperature * (log_p + log_w).logsumexp(0)


@full_precision
def fuse_logits(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean of the logits `[B, C]`, weighted by w `[K, B]` or 1/K.

    It is the normalized geometric mean of the probabilities at any T (arXiv 1503.02531). Raises ValueError unless the
    logits are `[K, B, C]`, K >= 1.
    """
    _check(logits)
    return logits.mean(0) if weights is None else (weights[..., None] * logits).sum(0)


@full_precision
def confidence_weights(logits: Tensor, y: Tensor) -> Tensor:
    """Return weights `[K, B]` of K teachers, larger for the one with the smaller cross-entropy on the label.

    `w_k = (1 − softmax_k(CE_k)) / (K − 1)` (CA-MKD, arXiv 2201.00007, equation 3); 1 for a single teacher.
    """
    _check(logits)
    if len(logits) == 1:
        return logits.new_ones(logits.shape[:2])
    labels = y.expand(len(logits), -1)[..., None]
    ce = -torch.log_softmax(logits, dim=-1).gather(2, labels)[..., 0]
    return (1 - ce.softmax(0)) / (len(logits) - 1)


@full_precision
def entropy_weights(logits: Tensor) -> Tensor:
    """Return weights `[K, B]` of K teachers, larger for the surer one: `softmax_k(−H(p_k))`, H in nats."""
    _check(logits)
    log_p = torch.log_softmax(logits, dim=-1)
    return (log_p.exp() * log_p).sum(-1).softmax(0)


def mean_loss(loss: Callable[[Tensor, Tensor], Tensor], s: Tensor, logits: Tensor) -> Tensor:
    """Return the mean over the K teachers of `loss(s, z_k)`. Raises ValueError unless they are `[K, B, C]`, K >= 1."""
    _check(logits)
    return torch.stack([loss(s, t) for t in logits]).mean()


def _check(logits: Tensor) -> None:
    if logits.dim() != 3 or len(logits) == 0:
        raise ValueError(f"logits of K teachers must be [K, B, C], got {list(logits.shape)}")
