"""Losses of the relations between the samples of a batch. `v` features `[B, D]`, `f` maps `[B, …]`; no unit.

The widths of student and teacher may differ, except for `correlation`. They see the batch they are given: under several
processes gather it first (`kd_lightning.losses.gather`). A batch of one sample has no relations: ValueError.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from kd_lightning.losses.functional._common import full_precision, same_batch, same_shape


@full_precision
def similarity(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Similarity preserving (SP, arXiv 1907.09682, section 3): `‖G_t − G_s‖_F² / B²`.

    G is `F Fᵀ` `[B, B]` with each row scaled to norm 1; F is the map `[B, …]` flattened per sample. Raises ValueError
    if the batches differ or hold 1 sample.
    """
    same_batch("similarity", f_s, f_t, ge=2)
    g_s, g_t = (F.normalize(f.flatten(1) @ f.flatten(1).T) for f in (f_s, f_t))
    return F.mse_loss(g_s, g_t)


@full_precision
def correlation(v_s: Tensor, v_t: Tensor) -> Tensor:
    """Correlation congruence (arXiv 1904.01802), in the form compared by CRD: `mean_i Σ_d |δ_i|·|δ_{i+1}|`.

    `δ = v_s − v_t` `[B, D]`, of samples that follow each other in the batch; both come from embeddings to one width.
    Raises ValueError if the shapes differ or the batch holds 1 sample.
    """
    same_shape("correlation", v_s, v_t)
    same_batch("correlation", v_s, v_t, ge=2)
    delta = (v_s - v_t).abs()
    return (delta[:-1] * delta[1:]).sum(1).mean()


def distances(v: Tensor) -> Tensor:
    """Return pairwise distances `[B, B]` over the mean of those above 0."""
    # From differences: in a Gram matrix small distances would cancel.
    d = torch.cdist(v, v, compute_mode="donot_use_mm_for_euclid_dist")
    positive = d > 0
    mean = d.sum() / positive.sum().clamp(min=1)
    return d / mean.clamp(min=1e-12)


@full_precision
def rkd_distance(v_s: Tensor, v_t: Tensor) -> Tensor:
    """Distance-wise relational distillation (RKD-D, arXiv 1904.05068, section 3.2): mean smooth L1 over `[B, B]`.

    Of the distances of all pairs; each network's distances are divided by their own mean over the pairs apart. Raises
    ValueError if the batches differ or hold 1 sample.
    """
    same_batch("rkd_distance", v_s, v_t, ge=2)
    return F.smooth_l1_loss(distances(v_s), distances(v_t))


MAX_ANGLES = 2**24
"""Number of angles that `rkd_angle` holds at once per network: 64 MB in float32, all angles of 256 samples."""


def angles(v: Tensor, corners: slice) -> Tensor:
    """Return cosines `[n, B, B]` at each of n corners of the angle between samples j and k; 0 where two coincide."""
    e = F.normalize(v[None] - v[corners, None], dim=2)
    return e @ e.mT


def angle_error(v_s: Tensor, v_t: Tensor, corners: slice) -> Tensor:
    """Return the sum of smooth L1 of the cosines at some corners."""
    return F.smooth_l1_loss(angles(v_s, corners), angles(v_t, corners), reduction="sum")


@full_precision
def rkd_angle(v_s: Tensor, v_t: Tensor) -> Tensor:
    """Angle-wise relational distillation (RKD-A, arXiv 1904.05068, section 3.2): mean smooth L1 over `[B, B, B]`.

    Of the cosines of the angles of all triples. Beyond 256 samples the corners are taken in groups, whose angles are
    computed again for the gradient, so that memory grows as B²·D and not as B³. Raises ValueError if the batches differ
    or hold fewer than 3 samples.
    """
    same_batch("rkd_angle", v_s, v_t, ge=3)
    n = len(v_s)
    if n**3 <= MAX_ANGLES:
        return F.smooth_l1_loss(angles(v_s, slice(n)), angles(v_t, slice(n)))
    step = max(1, MAX_ANGLES // n**2)
    total = v_s.new_zeros(())
    for start in range(0, n, step):
        corners = slice(start, start + step)
        total = total + checkpoint(
            angle_error, v_s, v_t, corners, use_reentrant=False, preserve_rng_state=False, determinism_check="none"
        )
    return total / n**3


def neighbour_probabilities(v: Tensor) -> Tensor:
    """Return cosine similarities `[B, B]` moved to [0, 1], each row over its sum."""
    u = v / (v.norm(dim=1, keepdim=True) + 1e-7)
    p = (u @ u.T + 1).clamp(min=0) / 2
    return p / p.sum(1, keepdim=True)


@full_precision
def pkt(v_s: Tensor, v_t: Tensor) -> Tensor:
    """Probabilistic knowledge transfer (PKT, arXiv 1803.10837, section 3): `mean_ij p_t·ln((p_t + 1e-7)/(p_s + 1e-7))`.

    p are the cosine similarities moved to [0, 1], each row over its sum. The mean over all B² entries, so the KL per
    sample is B times that. Raises ValueError if the batches differ or hold 1 sample.
    """
    same_batch("pkt", v_s, v_t, ge=2)
    p_s, p_t = neighbour_probabilities(v_s), neighbour_probabilities(v_t)
    return (p_t * ((p_t + 1e-7) / (p_s + 1e-7)).log()).mean()
