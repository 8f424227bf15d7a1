"""The networks of a run, as a method sees them before training."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from kd_lightning.models.probe import Probe
from kd_lightning.types import StudentCard


@dataclass(frozen=True)
class Networks:
    """Student and teacher before training, and facts that methods need to make their parameters."""

    student: Probe
    teacher: Probe | None
    """None if the run has no teacher."""
    num_samples: int
    """Number of training samples; every `Batch.index` is below it."""
    new_student: Callable[[int], nn.Module]
    """Make another student, with initial weights of its own for each number from 1."""
    card: StudentCard
    """Description that rebuilds the student."""
