"""The cross-entropy on the labels, and ordinary training: the equal-budget baseline of every distillation."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.method import Method
from kd_lightning.types import UNLABELED, Batch


def task_loss(logits: Tensor, batch: Batch, some_unlabeled: bool = False, smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of logits `[B, C]` with the labels, in nats.

    With smoothing ε a label is 1 − ε + ε/C for its class and ε/C for the others (arXiv 1512.00567, sec. 7). A mixed
    picture counts with both of its labels, by their shares. With `some_unlabeled`, the mean is that of the labelled
    samples, or 0 if the batch has none.
    """
    if some_unlabeled:
        return _labelled_mean(logits.float(), batch, smoothing)
    if batch.mixed is None:
        return F.cross_entropy(logits.float(), batch.y, label_smoothing=smoothing)
    own, other = (
        F.cross_entropy(logits.float(), y, reduction="none", label_smoothing=smoothing)
        for y in (batch.y, batch.mixed.y)
    )
    return torch.lerp(other, own, batch.mixed.share).mean()


def _labelled_mean(logits: Tensor, batch: Batch, smoothing: float) -> Tensor:
    known = batch.y != UNLABELED
    how: dict[str, Any] = {"reduction": "none", "ignore_index": UNLABELED, "label_smoothing": smoothing}
    ce = F.cross_entropy(logits, batch.y, **how)
    if batch.mixed is not None:
        known = known & (batch.mixed.y != UNLABELED)
        other = F.cross_entropy(logits, batch.mixed.y, **how)
        ce = torch.lerp(other, ce, batch.mixed.share)
    return (ce * known).sum() / known.sum().clamp(min=1)


class CE(Method):
    """No distillation: alpha is 0, so that `Distillation` trains on the labels alone and runs no teacher.

    Matches: nothing: labels only
    Formula: `CE(p_s, y)`
    Paper: –
    """

    needs_teacher = False

    def __init__(self, ce_weight: Any = 1.0):
        super().__init__(alpha=0.0, ce_weight=ce_weight)
