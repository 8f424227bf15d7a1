"""Losses of logits. Shapes: B samples, C classes, K teachers; `s`, `t` logits `[B, C]`, `y` classes `[B]`.

Each returns a scalar in nats (times T² where the formula says so), the mean over the batch. `p(T)` is softmax(z/T).
Everything is computed from logarithms of probabilities, so logits of any finite size give a finite value and gradient.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.functional._common import full_precision, same_shape, soften


def log_p(z: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Return ln softmax(z/T) over the last dimension. Raises ValueError if T is a number <= 0."""
    return torch.log_softmax(soften(z, temperature), dim=-1)


def kl(s: Tensor, t: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Return KL(p_t(T) ‖ p_s(T)) per sample `[B]` of logits `[B, C]`, without T²."""
    log_t = log_p(t, temperature)
    return (log_t.exp() * (log_t - log_p(s, temperature))).sum(-1)


def cross_entropy_soft(s: Tensor, t: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Return per sample −Σ_c p_t(T)·ln p_s(T) `[B]` of logits `[B, C]`, without T²."""
    return -(log_p(t, temperature).exp() * log_p(s, temperature)).sum(-1)


def split_target(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the target's logit `[B, 1]` and those of the other classes `[B, C−1]`, in their order."""
    target = y[:, None]
    column = torch.arange(z.shape[1] - 1, device=z.device)
    return z.gather(1, target), z.gather(1, column + (column >= target))  # skip over the target; no mask, no −inf


def one_against_rest(z: Tensor, y: Tensor) -> Tensor:
    """Return logits `[B, 2]` whose softmax is `[p(y), 1 − p(y)]`: z_y and the logsumexp of the others.

    No probability is formed and subtracted from 1, so neither can underflow to ln 0.
    """
    target, others = split_target(z, y)
    return torch.cat([target, others.logsumexp(1, keepdim=True)], dim=1)


@full_precision
def kd(s: Tensor, t: Tensor, temperature: float | Tensor) -> Tensor:
    """Distillation: `T² · mean_b KL(p_t(T) ‖ p_s(T))` (Hinton et al. 2015, arXiv 1503.02531, section 2).

    T² keeps the gradient's scale as T changes. `temperature` may be a learned scalar. Raises ValueError if the shapes
    differ or T <= 0.
    """
    same_shape("kd", s, t)
    return temperature**2 * kl(s, t, temperature).mean()


@full_precision
def dkd(s: Tensor, t: Tensor, y: Tensor, alpha: float, beta: float, temperature: float | Tensor) -> Tensor:
    """Decoupled distillation: `T² · mean[alpha·KL(b_t ‖ b_s) + beta·KL(p̂_t ‖ p̂_s)]` (arXiv 2203.08679, section 3).

    `b = [p(y), 1 − p(y)]` and `p̂` is the softmax over the classes other than y, both at T. Raises ValueError if the
    shapes differ or T <= 0.
    """
    same_shape("dkd", s, t)
    target = kl(one_against_rest(soften(s, temperature), y), one_against_rest(soften(t, temperature), y))
    others = kl(split_target(s, y)[1], split_target(t, y)[1], temperature)
    return temperature**2 * (alpha * target + beta * others).mean()


@full_precision
def nkd(s: Tensor, t: Tensor, y: Tensor, gamma: float, temperature: float | Tensor) -> Tensor:
    """Normalized distillation (NKD, arXiv 2303.13005): `−mean[p_t(y)·ln p_s(y)] + gamma·T²·mean CE(p̂_t, p̂_s)`.

    The first term is at T = 1; `p̂` is the softmax at T over the classes other than y, and CE is the cross-entropy, not
    the KL, so the value stays above 0 at s = t. Raises ValueError if the shapes differ or T <= 0.
    """
    same_shape("nkd", s, t)
    target = y[:, None]
    of_target = -log_p(t).gather(1, target).exp() * log_p(s).gather(1, target)
    others = cross_entropy_soft(split_target(s, y)[1], split_target(t, y)[1], temperature)
    return of_target.mean() + gamma * temperature**2 * others.mean()


@full_precision
def wsld(s: Tensor, t: Tensor, y: Tensor, temperature: float | Tensor) -> Tensor:
    """Weighted soft labels (WSLD, arXiv 2102.00650): `T² · mean_i[w_i · CE(p_t(T), p_s(T))]`.

    `w_i = 1 − exp(−CE_s(i) / (CE_t(i) + 1e-7))`, of the cross-entropies with the label at T = 1, is a constant to the
    gradient: samples that the student already knows better than the teacher count less. Raises ValueError if the shapes
    differ or T <= 0.
    """
    same_shape("wsld", s, t)
    with torch.no_grad():
        ratio = F.cross_entropy(s, y, reduction="none") / (F.cross_entropy(t, y, reduction="none") + 1e-7)
        weight = 1 - torch.exp(-ratio)
    return temperature**2 * (weight * cross_entropy_soft(s, t, temperature)).mean()


@full_precision
def rld(
    s: Tensor,
    t: Tensor,
    y: Tensor,
    alpha: float,
    beta: float,
    temperature: float | Tensor,
    alpha_temperature: float | Tensor,
) -> Tensor:
    """Refined logits (RLD, arXiv 2408.07394): `alpha·T_α²·mean KL(b_t ‖ b_s) + beta·T²·mean KL(m_t ‖ m_s)`.

    Sample confidence, at `T_α = alpha_temperature`: `b_t = [max p_t, 1 − max p_t]`, whichever class that is, against
    `b_s = [p_s(y), 1 − p_s(y)]`; a wrong teacher still tells how sure to be, but of the true class.
    Masked correlation, at T: softmax over the classes that the teacher ranks below y; the others, y too, are left out,
    so that a wrong ranking is not taught. A sample with y ranked last adds 0. The value at s = t is 0 only where
    the teacher is right. Raises ValueError if the shapes differ or T <= 0.
    """
    same_shape("rld", s, t)
    s_binary = one_against_rest(soften(s, alpha_temperature), y)
    t_binary = one_against_rest(soften(t, alpha_temperature), t.argmax(1))
    confidence = alpha_temperature**2 * kl(s_binary, t_binary).mean()

    masked = t >= t.gather(1, y[:, None])
    lowest = torch.finfo(s.dtype).min  # not −inf, whose difference with itself is NaN
    s_below, t_below = (soften(z, temperature).masked_fill(masked, lowest) for z in (s, t))
    return alpha * confidence + beta * temperature**2 * kl(s_below, t_below).mean()


@full_precision
def hard(s: Tensor, t: Tensor) -> Tensor:
    """Hard-label distillation: `mean CE(argmax_c t, s)` at T = 1 (DeiT, arXiv 2012.12877, equation 3).

    Raises ValueError if the shapes differ.
    """
    same_shape("hard", s, t)
    return F.cross_entropy(s, t.argmax(1))


@full_precision
def teacher_free(s: Tensor, y: Tensor, correct: float = 0.99, temperature: float | Tensor = 20.0) -> Tensor:
    """Distillation from a teacher made by hand, Tf-KD_reg (Yuan et al. 2020, arXiv 1909.11723, section 5).

    `T² · mean KL(p_d(T) ‖ p_s(T))` with `p_d = correct` at y and `(1 − correct)/(C − 1)` elsewhere, both softened by T
    (`p_d` as the softmax of ln p_d / T). T² is ours, as in `kd`; the paper leaves the scale to the weight. Raises
    ValueError unless 0 < correct < 1 and T > 0.
    """
    if not 0 < correct < 1:
        raise ValueError(f"correct must be a probability between 0 and 1, got {correct!r}")
    teacher = torch.full_like(s, math.log((1 - correct) / (s.shape[1] - 1)))
    return kd(s, teacher.scatter(1, y[:, None], math.log(correct)), temperature)
