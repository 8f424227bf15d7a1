"""The cross-entropy on the labels, and ordinary training: the equal-budget baseline of every distillation."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kd_lightning.losses.method import Method
from kd_lightning.types import Batch


def task_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Return the mean cross-entropy of logits `[B, C]` with the labels, in nats.

    A mixed picture counts with both of its labels, by their shares.
    """
    if batch.mixed is None:
        return F.cross_entropy(logits.float(), batch.y)
    own, other = (F.cross_entropy(logits.float(), y, reduction="none") for y in (batch.y, batch.mixed.y))
    return torch.lerp(other, own, batch.mixed.share).mean()


class CE(Method):
    """No distillation: alpha is 0, so that `Distillation` trains on the labels alone and runs no teacher.

    Matches: nothing: labels only
    Formula: `CE(p_s, y)`
    Paper: –
    """

    needs_teacher = False

    def __init__(self, ce_weight: Any = 1.0):
        super().__init__(alpha=0.0, ce_weight=ce_weight)
