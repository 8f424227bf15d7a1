"""Contrastive representation distillation (CRD, arXiv 1910.10699), without its state.

B samples, N training samples, D the embedding's width, m negatives. Embeddings `[B, D]` and the rows of a memory `[N,
D]` have norm 1; `contrast` `[B, 1 + m]` holds sample numbers, the positive first.
"""

import math

from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.functional._common import full_precision


@full_precision
def unit(v: Tensor) -> Tensor:
    """Return rows of norm 1 `[B, D]`, in float32 at least: half precision would keep three digits of a cosine."""
    return F.normalize(v)


def scores(v: Tensor, memory: Tensor, contrast: Tensor, tau: float) -> Tensor:
    """Return `v·memory/τ` `[B, 1 + m]`."""
    # Choosing among all `[B, N]` products needs less memory than rows `[B, 1 + m, D]`.
    return (v @ memory.T).gather(1, contrast) / tau


@full_precision
def crd_log_z(v: Tensor, memory: Tensor, contrast: Tensor, tau: float) -> Tensor:
    """Return the logarithm of the normalization `Z = N · mean exp(v·memory/τ)`, a scalar without gradient.

    Taken of the first batch and then kept (arXiv 1910.10699, as in noise-contrastive memories).
    """
    picked = scores(v.detach(), memory, contrast, tau)
    return picked.flatten().logsumexp(0) - math.log(picked.numel()) + math.log(len(memory))


@full_precision
def crd(v: Tensor, memory: Tensor, contrast: Tensor, log_z: Tensor, tau: float) -> Tensor:
    """Contrastive loss of one network's embeddings against the other's memory, mean over the batch, in nats.

    `−ln h(positive) − Σ_negatives ln(1 − h)`, `h = q/(q + m/N)`, `q = exp(v·memory/τ)/Z` (arXiv 1910.10699,
    section 3). The method's loss is the student's against the teacher's memory plus the reverse.
    """
    log_ratio = scores(v, memory, contrast, tau) - log_z - math.log((contrast.shape[1] - 1) / len(memory))
    positive, negative = log_ratio[:, 0], log_ratio[:, 1:]  # h = sigmoid(log_ratio), 1 − h = sigmoid(−log_ratio)
    return -(F.logsigmoid(positive) + F.logsigmoid(-negative).sum(1)).mean()


@full_precision
def crd_update(memory: Tensor, index: Tensor, v: Tensor, momentum: float) -> Tensor:
    """Return new rows of the memory `[B, D]`: `momentum·memory[index] + (1 − momentum)·v`, norm 1, no gradient."""
    return F.normalize(momentum * memory[index] + (1 - momentum) * v.detach())
