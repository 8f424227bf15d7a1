"""Losses of the relations between the logits of a batch, and functions that prepare logits for any loss.

`s`, `t` logits `[B, C]`; `P = softmax(z/T)`. They see the batch they are given: under several processes gather it first
(`kd_lightning.losses.gather`).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.functional._common import full_precision, same_batch, same_shape
from kd_lightning.losses.functional.logits import log_p


@full_precision
def standardize(z: Tensor) -> Tensor:
    """Return logits `[B, C]` with mean 0 and standard deviation 1 over the classes (arXiv 2403.01427, algorithm 1).

    `(z − mean_c z) / (1e-7 + std_c z)`, the unbiased std (C − 1); applied to student and teacher before `kd` or `dkd`.
    Raises ValueError for a single class.
    """
    if z.shape[-1] < 2:
        raise ValueError(f"standardize needs 2 classes or more, got logits {list(z.shape)}")
    return (z - z.mean(-1, keepdim=True)) / (1e-7 + z.std(-1, keepdim=True))


@full_precision
def ctkd_temperature(theta: Tensor, t_start: float, t_range: float) -> Tensor:
    """Return the learned temperature `t_start + t_range · sigmoid(θ)` (CTKD, arXiv 2211.16231), of the shape of θ."""
    return t_start + t_range * torch.sigmoid(theta)


def pearson(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """Return the Pearson correlation along `dim`; 0 where one of the two is constant."""
    return F.cosine_similarity(a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True), dim=dim)


@full_precision
def dist(s: Tensor, t: Tensor, beta: float, gamma: float, temperature: float | Tensor) -> Tensor:
    """DIST (arXiv 2205.10536, section 4): `T²·[beta·(1 − mean_i ρ(P_s[i], P_t[i])) + gamma·(1 − mean_c ρ(c))]`.

    ρ is the Pearson correlation: between classes for each sample, and between samples for each class (`ρ(c)` of the
    columns). No unit. Raises ValueError if the shapes differ, the batch has 1 sample, or T <= 0.
    """
    same_shape("dist", s, t)
    same_batch("dist", s, t, ge=2)
    p_s, p_t = log_p(s, temperature).exp(), log_p(t, temperature).exp()
    inter, intra = (1 - pearson(p_s, p_t, dim).mean() for dim in (1, 0))
    return temperature**2 * (beta * inter + gamma * intra)


@full_precision
def class_correlation(s: Tensor, t: Tensor, temperature: float | Tensor) -> Tensor:
    """Class level of multi-level distillation (Jin et al., CVPR 2023): `‖P_sᵀP_s − P_tᵀP_t‖_F² / C`; no unit.

    Raises ValueError if the shapes differ or T <= 0.
    """
    same_shape("class_correlation", s, t)
    p_s, p_t = log_p(s, temperature).exp(), log_p(t, temperature).exp()
    return (p_s.T @ p_s - p_t.T @ p_t).square().sum() / s.shape[1]


@full_precision
def batch_correlation(s: Tensor, t: Tensor, temperature: float | Tensor) -> Tensor:
    """Batch level of multi-level distillation (Jin et al., CVPR 2023): `‖P_sP_sᵀ − P_tP_tᵀ‖_F² / B`; no unit.

    Raises ValueError if the shapes differ or T <= 0.
    """
    same_shape("batch_correlation", s, t)
    p_s, p_t = log_p(s, temperature).exp(), log_p(t, temperature).exp()
    return (p_s @ p_s.T - p_t @ p_t.T).square().sum() / len(s)
