"""Ratio of the two gradients that move the student: its teacher's and its labels'."""

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

from kd_lightning.losses.distillation import Distillation
from kd_lightning.losses.tasks import Tasks
from kd_lightning.types import Outputs


def ratios(loss: Distillation | Tasks, terms: Mapping[str, Tensor], student: Outputs) -> dict[str, Tensor | None]:
    """Return `kd_over_ce` of each task; `""` is the only task of ordinary data."""
    found = {}
    for task in loss.tasks:
        prefix = f"{task}/" if task else ""
        own = {name.removeprefix(prefix): value for name, value in terms.items() if name.startswith(prefix)}
        found[task] = kd_over_ce(loss.of(task), own, student.of(task).logits)
    return found


def kd_over_ce(loss: Distillation, terms: Mapping[str, Tensor], logits: Tensor) -> Tensor | None:
    """Return `‖∂(alpha·method)/∂z‖ / ‖∂(ce_weight·CE)/∂z‖`, of student logits z `[B, C]` that `terms` came from.

    Above 1 the teacher pulls harder. The gradients stop at the logits, where both terms begin their way through the
    network: a few small kernels instead of two more backward passes. Nothing is accumulated, so the training that
    follows is the same, bit for bit.

    Args:
        loss: The loss that is trained on.
        terms: What it returned.
        logits: The student's logits, part of the graph of `terms`.

    Returns:
        A scalar, or None where there are not two terms that see the logits: plain training, methods of features alone.
    """
    alpha, ce_weight = loss.method.alpha(), loss.method.ce_weight()
    parts = [value for name, value in terms.items() if name not in ("loss", "ce", "fusion")]
    if not (alpha and ce_weight and parts and logits.requires_grad):
        return None
    taught, labelled = _length(reduce(torch.add, parts), logits), _length(terms["ce"], logits)
    return None if taught is None or labelled is None else alpha * taught / (ce_weight * labelled)


def _length(term: Tensor, logits: Tensor) -> Tensor | None:
    """Return the norm of the gradient, up to a factor; None if the term does not see the logits."""
    if not term.requires_grad:
        return None
    # The mean over a batch has gradients so small that float16 would lose them.
    scale = torch.full_like(term, len(logits))
    (gradient,) = torch.autograd.grad(term, logits, scale, retain_graph=True, allow_unused=True)
    return None if gradient is None else gradient.float().norm()
