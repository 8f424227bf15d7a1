"""A frozen network as a faster function of the same values: BatchNorm folded into its convolutions, bf16 weights."""

import copy

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

TOLERANCE = 1e-4  # of the largest logit; folding only reorders float32 arithmetic, about 1e-6


def for_inference(model: nn.Module, x: Tensor, precision: str) -> nn.Module:
    """A copy of `model` (in eval mode) that answers images like `x` `[B, 3, H, W]` alike, and faster.

    Each BatchNorm that follows a convolution is folded into it, and with `precision` = bf16-mixed convolutions and
    linear layers hold bf16 weights, which autocast would else cast anew in every step. Where the model cannot be
    traced, or the folded one says something else, its BatchNorms stay.
    """
    fast = _folded(model, x)
    if precision == "bf16-mixed":
        for module in fast.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(torch.bfloat16)
    return fast.eval().requires_grad_(False)


@torch.no_grad()
def _folded(model: nn.Module, x: Tensor) -> nn.Module:
    try:
        folded = fuse(model)
        said, says = model(x), folded(x)
    except Exception:  # tracing fails in as many ways as models are written
        return copy.deepcopy(model)
    close = float((said - says).abs().max()) <= TOLERANCE * float(said.abs().max())
    return folded if close else copy.deepcopy(model)
