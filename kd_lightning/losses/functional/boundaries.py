"""Losses of maps before the ReLU `[B, C, H, W]`, which care on which side of 0 an element lies. No unit."""

import math

import torch
from torch import Tensor

from kd_lightning.losses.functional._common import full_precision, same_shape

AB_SCALE = 3 / 1000
"""Makes a sum over (C, H, W) comparable with a loss in nats, so that the published weight of the method is 1."""


@full_precision
def activation_boundary(f_s: Tensor, f_t: Tensor, margin: float = 1.0) -> Tensor:
    """Activation boundaries (AB, arXiv 1811.03233, section 3): `3/1000 · sum_(C,H,W) mean_b relu(margin ∓ f_s)²`.

    `margin − f_s` where f_t > 0, `margin + f_s` elsewhere: the squared hinge of a student that is to be active just
    where the teacher is, its size being free beyond the margin; so the value at s = t is not 0. Raises ValueError if
    the shapes differ.
    """
    same_shape("activation_boundary", f_s, f_t)
    short = torch.where(f_t > 0, margin - f_s, margin + f_s).relu()
    return AB_SCALE * short.square().sum() / len(f_s)


@full_precision
def ofd(f_s: Tensor, f_t: Tensor, margin: float | Tensor) -> Tensor:
    """Overhaul of feature distillation (OFD, arXiv 1904.01866, section 3): partial L2 to a margin-ReLU.

    `target = max(f_t, margin)`; an element counts unless f_s <= target <= 0, where the ReLU passes neither. Sum over
    (C, H, W), mean over the batch. `margin` <= 0 is one number or `[C]` of `ofd_margin`. Raises ValueError if the
    shapes differ.
    """
    same_shape("ofd", f_s, f_t)
    floor = torch.as_tensor(margin, dtype=f_t.dtype, device=f_t.device)
    target = torch.maximum(f_t, floor[:, None, None] if floor.dim() == 1 else floor)
    counts = (f_s > target) | (target > 0)
    return ((f_s - target).square() * counts).sum() / len(f_s)


@full_precision
def ofd_margin(weight: Tensor, bias: Tensor) -> Tensor:
    """Return the margin of `ofd` per channel `[C]`: `E[x | x < 0]` for `x ~ N(bias, weight²)`.

    Section 3 of arXiv 1904.01866. `weight`, `bias` `[C]` are those of the BatchNorm before the ReLU. With
    r = bias/|weight| the mean is `bias − |weight|·φ(r)/Φ(−r)`, and `φ(r)/Φ(−r) = √(2/π)/erfcx(r/√2)` neither under- nor
    overflows for channels that are almost never, or always, negative.
    """
    scale = weight.abs().clamp(min=1e-12)
    hazard = math.sqrt(2 / math.pi) / torch.special.erfcx(bias / (scale * math.sqrt(2)))
    return (bias - scale * hazard).clamp(max=0)  # rounding could leave it just above
