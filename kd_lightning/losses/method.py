"""The interface of a distillation method."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from kd_lightning.losses.layers import Layers
from kd_lightning.losses.networks import Networks
from kd_lightning.losses.schedule import Schedule
from kd_lightning.types import Batch, Outputs, StudentCard


class Method(nn.Module):
    """Base class of distillation methods: a term of the loss, computed from both networks' outputs.

    `Distillation` trains on `ce_weight·CE(student, labels) + alpha·method`. A subclass implements `forward`; everything
    else has a default. Parameters of a method are trained with the student, saved for resuming, and not deployed.

    Args:
        alpha: Weight of the method, >= 0: a number or a schedule (see `Schedule`).
        ce_weight: Weight of the cross-entropy on the labels, likewise.
    """

    needs_teacher = True
    """False for a method that runs no teacher; its `forward` is then given None."""
    least_batch = 1
    """Smallest number of samples in a batch that the method can compare."""
    label_smoothing = 0.0
    """Share of each label that goes to all classes evenly in the cross-entropy (arXiv 1512.00567), in [0, 1]."""
    needs_labels = False
    """True if the method reads the labels itself, so that it cannot distill unlabeled samples."""

    def __init__(self, alpha: Any = 1.0, ce_weight: Any = 1.0):
        super().__init__()
        self.alpha = Schedule("loss.alpha", alpha, ge=0)
        self.ce_weight = Schedule("loss.ce_weight", ce_weight, ge=0)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> Any:
        """Return a scalar, or a dictionary of scalars by name, of which the sum counts."""
        raise NotImplementedError

    def prepare(self, networks: Networks) -> None:
        """Find layers and make parameters; called once, before the optimizer is made. May raise UserError."""

    def wrap_student(self, student: nn.Module) -> nn.Module:
        """Return the network to train and deploy; by default the student itself."""
        return student

    def wrap_card(self, card: StudentCard) -> StudentCard:
        """Return the card of the network that `wrap_student` returned."""
        return card

    @property
    def peers(self) -> Sequence[nn.Module]:
        """Return networks of the student's kind that are trained beside it; known after `prepare`."""
        return ()

    deploys_best = False
    """True if of student and peers the one that is best on validation is deployed, not the student itself."""

    def temperature(self) -> float | Tensor:
        """Return the temperature at which the teacher's logits are softened now; 1 if they are not."""
        return 1.0

    def set_epoch(self, epoch: float) -> None:
        """Move all schedules to `epoch`, the number of epochs trained so far, with its fraction."""
        for module in self.modules():
            if isinstance(module, Schedule):
                module.epoch = epoch

    @property
    def student_layers(self) -> tuple[str, ...]:
        """Names of the student's layers that `forward` reads; known after `prepare`."""
        return tuple(dict.fromkeys(name for m in self.modules() if isinstance(m, Layers) for name in m.student))

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        """Names of the teacher's layers that `forward` reads; known after `prepare`."""
        return tuple(dict.fromkeys(name for m in self.modules() if isinstance(m, Layers) for name in m.teacher))
