"""Which of the two terms moves the student: its teacher's or its labels'."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kd_lightning.losses.distillation import Distillation


def kd_over_ce(loss: Any, terms: Mapping[str, Tensor], logits: Tensor) -> Tensor | None:
    """`‖∂(alpha·method)/∂z‖ / ‖∂(ce_weight·CE)/∂z‖` of the student's logits z `[B, C]`, which `terms` came from.

    The gradients stop at the logits, where both terms begin their way through the network: a few small kernels instead
    of two more backward passes, nothing is accumulated, and what follows is the same, bit for bit. Above 1 the teacher
    pulls harder. None where there are not two terms that see the logits: plain training, methods of features alone.
    """
    if not isinstance(loss, Distillation):
        return None
    alpha, ce_weight = loss.alpha(), loss.ce_weight()
    method = [value for name, value in terms.items() if name not in ("loss", "ce", "fusion")]
    if not (alpha and ce_weight and method and logits.requires_grad):
        return None
    taught, labelled = _length(sum(method), logits), _length(terms["ce"], logits)
    return None if taught is None or labelled is None else alpha * taught / (ce_weight * labelled)


def _length(term: Any, logits: Tensor) -> Tensor | None:
    """Of the gradient, up to a factor: a mean over the batch has gradients so small that float16 would lose them."""
    if not term.requires_grad:
        return None
    scale = torch.full_like(term, len(logits))
    (gradient,) = torch.autograd.grad(term, logits, scale, retain_graph=True, allow_unused=True)
    return None if gradient is None else gradient.float().norm()
