"""Learning-rate factors as functions of progress, so that a run can go on with more epochs than it was started with."""

import math
from collections.abc import Sequence

from kd_lightning.utils.checks import UserError, integer, number


def cosine(epoch: float, max_epochs: int, warmup_epochs: float = 0, final: float = 0.0) -> float:
    """Return half a cosine from 1 to `final` (SGDR, arXiv 1608.03983, eq. 5, one period). `epoch` counts fractions."""
    warmup = _warmup(epoch, max_epochs, warmup_epochs)
    final = number("scheduler.final", final, ge=0, le=1)
    progress = min(1.0, max(0.0, epoch - warmup_epochs) / max(max_epochs - warmup_epochs, 1e-9))
    return warmup * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))


def multistep(
    epoch: float, max_epochs: int, milestones: Sequence[float] = (), gamma: float = 0.1, warmup_epochs: float = 0
) -> float:
    """Return `gamma` to the power of the number of `milestones` (epochs) passed."""
    gamma = number("scheduler.gamma", gamma, gt=0, le=1)
    passed = sum(epoch >= number("scheduler.milestones", m, ge=0) for m in milestones)
    return _warmup(epoch, max_epochs, warmup_epochs) * gamma**passed


def constant(epoch: float, max_epochs: int, warmup_epochs: float = 0) -> float:
    """Return 1 after the warm-up."""
    return _warmup(epoch, max_epochs, warmup_epochs)


def _warmup(epoch: float, max_epochs: int, warmup_epochs: float) -> float:
    number("scheduler.warmup_epochs", warmup_epochs, ge=0)
    integer("trainer.max_epochs", max_epochs, ge=1)
    if warmup_epochs > max_epochs:
        raise UserError(f"scheduler.warmup_epochs must be <= the {max_epochs} epochs of training, got {warmup_epochs}")
    return 1.0 if epoch >= warmup_epochs else max(epoch / warmup_epochs, 1e-3)
