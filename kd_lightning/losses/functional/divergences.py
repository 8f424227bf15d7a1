"""Divergences between the softened probabilities of student and teacher, other than the forward KL of `kd`.

Shapes: B samples, C classes; `s`, `t` logits `[B, C]`; T a number, or `[B, 1]`. `p(T)` is softmax(z/T). In nats, except
for the total variation, which has no unit. All are computed from logarithms of probabilities.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kd_lightning.losses.functional._common import full_precision, same_shape
from kd_lightning.losses.functional.logits import kl, log_p

Divergence = Callable[[Tensor, Tensor, float | Tensor, float], Tensor]


def reverse_kl(s: Tensor, t: Tensor, temperature: float | Tensor) -> Tensor:
    """Return KL(p_s(T) ‖ p_t(T)) per sample `[B]` (MiniLLM, arXiv 2306.08543, section 2.1)."""
    return kl(t, s, temperature)


def jensen_shannon(s: Tensor, t: Tensor, temperature: float | Tensor, beta: float) -> Tensor:
    """Return the generalized Jensen-Shannon divergence per sample `[B]` (GKD, arXiv 2306.13649, section 2).

    `beta·KL(p_t ‖ m) + (1 − beta)·KL(p_s ‖ m)` with `m = beta·p_t + (1 − beta)·p_s`. At 0 and 1, where this is 0, it
    stands for its limits over `beta` and over `1 − beta`, the forward KL and the reverse KL (as in the GKD trainer of
    TRL).
    """
    if beta == 0:
        return kl(s, t, temperature)
    if beta == 1:
        return reverse_kl(s, t, temperature)
    log_s, log_t = log_p(s, temperature), log_p(t, temperature)
    log_m = torch.logaddexp(log_t + math.log(beta), log_s + math.log1p(-beta))
    of_teacher, of_student = ((log.exp() * (log - log_m)).sum(-1) for log in (log_t, log_s))
    return beta * of_teacher + (1 - beta) * of_student


def total_variation(s: Tensor, t: Tensor, temperature: float | Tensor) -> Tensor:
    """Return `½ Σ_c |p_t(T) − p_s(T)|` per sample `[B]`, in [0, 1]."""
    return (log_p(t, temperature).exp() - log_p(s, temperature).exp()).abs().sum(-1) / 2


DIVERGENCES: dict[str, Divergence] = {
    "forward_kl": lambda s, t, temperature, beta: kl(s, t, temperature),
    "reverse_kl": lambda s, t, temperature, beta: reverse_kl(s, t, temperature),
    "jensen_shannon": jensen_shannon,
    "total_variation": lambda s, t, temperature, beta: total_variation(s, t, temperature),
}
"""Name → value per sample `[B]` of logits `[B, C]`, temperature and beta, without a power of T."""


@full_precision
def divergence(
    s: Tensor,
    t: Tensor,
    temperature: float | Tensor,
    kind: str = "forward_kl",
    beta: float = 0.5,
    weight: Tensor | None = None,
) -> Tensor:
    """Return `mean_b w·T²·D(p_t(T), p_s(T))` of the divergence called `kind`; for `total_variation`, T instead of T².

    The power of T keeps the gradient's scale as T changes: a KL is quadratic in p_t − p_s, the total variation linear.

    Args:
        s: Logits of the student `[B, C]`.
        t: Logits of the teacher `[B, C]`.
        temperature: T, one for all samples or one for each, `[B]`.
        kind: Name in `DIVERGENCES`.
        beta: Of `jensen_shannon`, in [0, 1].
        weight: w of each sample `[B]`; None for 1.

    Raises:
        ValueError: If the shapes differ or T is a number <= 0.
    """
    same_shape("divergence", s, t)
    power = 1 if kind == "total_variation" else 2
    if isinstance(temperature, Tensor) and temperature.dim() == 1:
        each = temperature**power * DIVERGENCES[kind](s, t, temperature[:, None], beta)
        return (each if weight is None else weight * each).mean()
    each = DIVERGENCES[kind](s, t, temperature, beta)
    return temperature**power * (each if weight is None else weight * each).mean()
