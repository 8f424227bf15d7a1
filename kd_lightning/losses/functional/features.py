"""Losses of feature maps `[B, C, H, W]`, one pair of layers each. No unit; student first, teacher second.

Where the two sizes (H, W) may differ, the larger map is average-pooled to the smaller. Channel numbers may differ where
the method reduces them; elsewhere a learned map, part of the module that uses the function, comes first.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.functional._common import full_precision, same_batch, same_shape
from kd_lightning.losses.functional.sizes import pool


def same_size(*maps: Tensor) -> list[Tensor]:
    """Return the maps, average-pooled to the smallest height and width among them."""
    h, w = (min(f.shape[d] for f in maps) for d in (2, 3))
    return [f if f.shape[2:] == (h, w) else pool(f, (h, w)) for f in maps]


@full_precision
def hint(f_s: Tensor, f_t: Tensor) -> Tensor:
    """FitNets (arXiv 1412.6550, equation 3): mean squared error over all elements, any shape.

    Raises ValueError if the shapes differ.
    """
    same_shape("hint", f_s, f_t)
    return F.mse_loss(f_s, f_t)


def spatial_attention(f: Tensor, p: float) -> Tensor:
    """Return `Q = v/‖v‖₂` `[B, H·W]` of `v = mean_c |f|^p`. The mean over channels, so any channel number compares."""
    return F.normalize(f.abs().pow(p).mean(1).flatten(1))


@full_precision
def attention(f_s: Tensor, f_t: Tensor, p: float = 2) -> Tensor:
    """Attention transfer (arXiv 1612.03928, equation 2, mean instead of sum): `mean (Q_s − Q_t)²` over `[B, H·W]`.

    `Q = v/‖v‖₂`, `v = mean_c |f|^p`. Raises ValueError if the batches differ.
    """
    same_batch("attention", f_s, f_t)
    f_s, f_t = same_size(f_s, f_t)
    return F.mse_loss(spatial_attention(f_s, p), spatial_attention(f_t, p))


@full_precision
def factor(f_s: Tensor, f_t: Tensor, p1: float = 2, p2: float = 1) -> Tensor:
    """Factor transfer (arXiv 1802.04977, section 3): `mean |Q_s − Q_t|^p2` over `[B, H·W]`.

    `Q = v/‖v‖₂`, `v = mean_c |f|^p1`. The factors are the maps themselves; a paraphraser or translator, if wanted,
    comes first. Raises ValueError if the batches differ.
    """
    same_batch("factor", f_s, f_t)
    f_s, f_t = same_size(f_s, f_t)
    return (spatial_attention(f_s, p1) - spatial_attention(f_t, p1)).abs().pow(p2).mean()


@full_precision
def nst(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Neuron selectivity transfer (NST, arXiv 1707.01219, section 4): squared MMD with the kernel `k(x, y) = (xᵀy)²`.

    The points are the channels' maps, each of norm 1: `mean k(s, s') + mean k(t, t') − 2 mean k(s, t)`, mean over the
    batch. Raises ValueError if the batches differ.
    """
    same_batch("nst", f_s, f_t)
    s, t = (F.normalize(f.flatten(2), dim=2) for f in same_size(f_s, f_t))
    ss, tt, st = ((a @ b.mT).square().mean() for a, b in ((s, s), (t, t), (s, t)))
    return ss + tt - 2 * st


@full_precision
def vid(f_s_mapped: Tensor, f_t: Tensor, log_scale: Tensor) -> Tensor:
    """Variational information distillation (VID, arXiv 1904.05835, section 2): `mean ½[(μ − f_t)²/σ² + ln σ²]`.

    In nats per element, less ½ ln 2π: a Gaussian for the teacher's `[B, C, …]` with mean μ = the mapped student's and
    `σ² = softplus(log_scale) + 1e-5`, `log_scale` `[C]` one number per teacher channel, to be trained with the student.
    Raises ValueError if the shapes differ.
    """
    same_shape("vid", f_s_mapped, f_t)
    variance = (F.softplus(log_scale) + 1e-5).view(-1, *[1] * (f_t.dim() - 2))
    return ((f_s_mapped - f_t).square() / variance + variance.log()).mean() / 2


def pyramid_mse(f_s: Tensor, f_t: Tensor) -> Tensor:
    """Return the MSE at full size and pooled to 4, 2, 1 (those below the height), weights 1, ½, ¼, ⅛ over their sum."""
    levels = [f_s.shape[2], *(n for n in (4, 2, 1) if n < f_s.shape[2])]
    weights = [0.5**i for i in range(len(levels))]
    error = f_s - f_t  # pooling is linear, so the error is pooled once instead of both maps
    losses = [error.square().mean()] + [pool(error, (n, n)).square().mean() for n in levels[1:]]
    return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum() / sum(weights)


@full_precision
def hierarchical_context(f_s: Sequence[Tensor], f_t: Sequence[Tensor]) -> Tensor:
    """Loss of ReviewKD (arXiv 2104.09044, section 3.4): sum over the layers of a pyramid of mean squared errors.

    Of each pair: MSE of the maps and of both pooled to 4 × 4, 2 × 2, 1 × 1 (where smaller than the map), weighted 1, ½,
    ¼, ⅛, over the sum of the weights. Raises ValueError if the numbers of layers or their shapes differ.
    """
    if len(f_s) != len(f_t):
        raise ValueError(f"hierarchical_context wants as many student as teacher maps, got {len(f_s)} and {len(f_t)}")
    for s, t in zip(f_s, f_t, strict=True):
        same_shape("hierarchical_context", s, t)
    return torch.stack([pyramid_mse(s, t) for s, t in zip(f_s, f_t, strict=True)]).sum()


def flows(maps: Sequence[Tensor]) -> list[Tensor]:
    """Return `G = F_iᵀF_{i+1}/(H·W)` `[B, C_i, C_{i+1}]` of each two consecutive maps."""
    pairs = (same_size(*pair) for pair in pairwise(maps))
    return [a.flatten(2) @ b.flatten(2).mT / a[0, 0].numel() for a, b in pairs]


@full_precision
def fsp(f_s: Sequence[Tensor], f_t: Sequence[Tensor]) -> Tensor:
    """Flow of solution procedure (Yim et al., CVPR 2017, equations 1 and 3): `mean_b Σ_i ‖G_t,i − G_s,i‖_F²`.

    `G_i = F_iᵀF_{i+1}/(H·W)` over the positions of two maps that follow each other, the larger average-pooled to the
    smaller (the paper: max-pooled). The maps of both networks are listed from shallow to deep and need the same channel
    numbers. Raises ValueError if there are fewer than 2 maps, or the numbers of maps, samples or channels differ.
    """
    if len(f_s) != len(f_t) or len(f_s) < 2:
        raise ValueError(
            f"fsp wants 2 or more maps, as many of the student as the teacher, got {len(f_s)} and {len(f_t)}"
        )
    pairs = list(zip(flows(f_s), flows(f_t), strict=True))
    for s, t in pairs:
        same_shape("fsp", s, t)
    return torch.stack([(t - s).square().sum((1, 2)).mean() for s, t in pairs]).sum()
