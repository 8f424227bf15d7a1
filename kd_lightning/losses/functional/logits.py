"""Losses of logits. Shapes: B samples, C classes, K teachers; `s`, `t` logits `[B, C]`, `y` classes `[B]`.

Each returns a scalar in nats (times T² where the formula says so), the mean over the batch. `p(T)` is softmax(z/T).
Everything is computed from logarithms of probabilities, so logits of any finite size give a finite value and gradient.
"""

import torch
from torch import Tensor

from kd_lightning.losses.functional._common import full_precision, same_shape
from kd_lightning.losses.functional.fusion import fuse_probabilities


def log_p(z: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """ln softmax(z/T) over the last dimension. Raises ValueError if T is a number <= 0."""
    if not isinstance(temperature, Tensor) and temperature <= 0:
        raise ValueError(f"temperature must be > 0, got {temperature!r}")
    return torch.log_softmax(z / temperature, dim=-1)


def kl(s: Tensor, t: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Per sample KL(p_t(T) ‖ p_s(T)) `[B]` of logits `[B, C]`, without T²."""
    log_t = log_p(t, temperature)
    return (log_t.exp() * (log_t - log_p(s, temperature))).sum(-1)


def cross_entropy_soft(s: Tensor, t: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Per sample −Σ_c p_t(T)·ln p_s(T) `[B]` of logits `[B, C]`, without T²."""
    return -(log_p(t, temperature).exp() * log_p(s, temperature)).sum(-1)


def split_target(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The target's logit `[B, 1]` and those of the other classes `[B, C−1]`, in their order."""
    target = y[:, None]
    column = torch.arange(z.shape[1] - 1, device=z.device)
    return z.gather(1, target), z.gather(1, column + (column >= target))  # skip over the target; no mask, no −inf


@full_precision
def kd(s: Tensor, t: Tensor, temperature: float | Tensor) -> Tensor:
    """Distillation: `T² · mean_b KL(p_t(T) ‖ p_s(T))` (Hinton et al. 2015, arXiv 1503.02531, section 2).

    T² keeps the gradient's scale as T changes. Teacher logits `[K, B, C]` of K teachers count as one teacher, whose
    probabilities are the mean of theirs at T. `temperature` may be a learned scalar. Raises ValueError if the shapes
    differ or T <= 0.
    """
    if t.dim() == 3:
        t = fuse_probabilities(t, temperature)
    same_shape("kd", s, t)
    return temperature**2 * kl(s, t, temperature).mean()


@full_precision
def dkd(s: Tensor, t: Tensor, y: Tensor, alpha: float, beta: float, temperature: float | Tensor) -> Tensor:
    """Decoupled distillation: `T² · mean[alpha·KL(b_t ‖ b_s) + beta·KL(p̂_t ‖ p̂_s)]` (arXiv 2203.08679, equation 7).

    `b = [p(y), 1 − p(y)]` and `p̂` is the softmax over the classes other than y, both at T. As ln p(y) and
    ln(1 − p(y)) are the log-softmax of (z_y/T, logsumexp of the others/T), no probability is ever formed
    and subtracted from 1. Raises ValueError if the shapes differ or T <= 0.
    """
    same_shape("dkd", s, t)
    (s_y, s_others), (t_y, t_others) = split_target(s / temperature, y), split_target(t / temperature, y)
    s_binary = torch.cat([s_y, s_others.logsumexp(1, keepdim=True)], dim=1)
    t_binary = torch.cat([t_y, t_others.logsumexp(1, keepdim=True)], dim=1)
    return temperature**2 * (alpha * kl(s_binary, t_binary) + beta * kl(s_others, t_others)).mean()
