"""The terms of a training step, as the callbacks get them from Lightning."""

from collections.abc import Mapping

import lightning.pytorch as pl
from torch import Tensor


def step_terms(trainer: pl.Trainer, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what `training_step` returned, detached.

    Lightning divides `loss` by `accumulate_grad_batches` on the way, and no other term.
    """
    terms = {name: value.detach() for name, value in outputs.items()}
    if trainer.accumulate_grad_batches > 1:
        terms["loss"] = terms["loss"] * trainer.accumulate_grad_batches
    return terms
