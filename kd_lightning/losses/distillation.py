"""The sum that is trained on: the labels' cross-entropy and what a method wants."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from kd_lightning.losses.ce import task_loss
from kd_lightning.losses.combination import Combination
from kd_lightning.losses.functional._common import full
from kd_lightning.losses.fusion import Fusion
from kd_lightning.losses.layers import Layers
from kd_lightning.losses.schedule import Setting, set_epoch
from kd_lightning.models.probe import Networks
from kd_lightning.types import Batch, Outputs
from kd_lightning.utils.checks import UserError


class Distillation(nn.Module):
    """`ce_weight·CE(student, labels) + alpha·method`, whatever the method; both weights >= 0, or schedules.

    `method(student, teacher, batch)` gives a scalar, or several by name, of which the sum counts. An `nn.Module` may
    have parameters, which are trained with the student, saved for resuming and not deployed with it, and
    `prepare(networks)`, called once before training. A method whose `needs_teacher` is False is given None.

    `alpha = 0` is ordinary training, and the teacher is not run. Raises UserError for a negative weight, or two of 0.
    """

    def __init__(self, method: Any, alpha: Any = 1.0, ce_weight: Any = 1.0, fusion: Fusion | None = None):
        super().__init__()
        self.fusion = fusion or Fusion()
        self.method = method
        self.alpha = Setting("loss.alpha", alpha, least=0)
        self.ce_weight = Setting("loss.ce_weight", ce_weight, least=0)
        if self.alpha.largest == self.ce_weight.largest == 0:
            raise UserError("loss.alpha and loss.ce_weight are both 0, so there is nothing to learn; set one above 0")
        self.is_on = self.alpha.largest > 0
        self.needs_teacher = self.is_on and getattr(method, "needs_teacher", True)

    @property
    def student_layers(self) -> tuple[str, ...]:
        """Layers of the student that the method compares; known after `prepare`, as are the teacher's."""
        return self._layers("student")

    @property
    def teacher_layers(self) -> tuple[str, ...]:
        return self._layers("teacher")

    def _layers(self, whose: str) -> tuple[str, ...]:
        found = [name for m in self.modules() if isinstance(m, Layers) for name in getattr(m, whose)]
        return tuple(dict.fromkeys(found)) if self.is_on else ()

    def prepare(self, networks: Networks) -> None:
        """Finds layers and shapes and makes the method's parameters; before the optimizer. Raises UserError."""
        if self.is_on and hasattr(self.method, "prepare"):
            self.method.prepare(networks)

    def deployed(self, student: nn.Module) -> nn.Module:
        """The network to train, keep and deploy: `student`, unless the method puts something on it (SimKD)."""
        on_top = getattr(self.method, "deployed", None)
        return on_top(student) if self.is_on and on_top else student

    def set_epoch(self, epoch: float) -> None:
        """Moves all schedules to `epoch`, the epochs trained so far as a fraction."""
        set_epoch(self, epoch)

    def temperature(self) -> Any:
        """T at which the method softens logits now; 1 where it does not."""
        return temperature_of(self.method)

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Logits `[B, C]`, labels `[B]`; returns scalars: `loss` and its parts, `ce` and the method's, unweighted."""
        # Once, not in each part: so the gradients of all parts are added before they are rounded to the network's type.
        student = student._replace(logits=full(student.logits))
        ce = task_loss(student.logits, batch)
        loss = self.ce_weight() * ce
        if not self.is_on:
            return {"loss": loss, "ce": ce}
        parts = self._ask(self.method, student, teacher, batch)
        loss = loss + self.alpha() * sum(parts.values())
        own = None if teacher is None or teacher.logits.dim() == 2 else self.fusion.own_loss(teacher.logits, batch.y)
        return (
            {"loss": loss, "ce": ce, **parts} if own is None else {"loss": loss + own, "ce": ce, "fusion": own, **parts}
        )

    def _ask(self, method: Any, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """A method's parts; logits `[K, B, C]` of K teachers are fused first, or their losses afterwards."""
        if isinstance(method, Combination):
            return method(student, teacher, batch, self._ask)
        if teacher is None or teacher.logits.dim() == 2:
            return named(method, method(student, teacher, batch))
        if self.fusion.fusion == "losses":
            weights = self.fusion.weights(teacher.logits, batch.y)[:, 0]
            each = [named(method, method(student, Outputs(logits), batch)) for logits in teacher.logits]
            return {name: sum(w * parts[name] for w, parts in zip(weights, each, strict=True)) for name in each[0]}
        fused = Outputs(self.fusion(teacher.logits, batch.y, temperature_of(method)))
        return named(method, method(student, fused, batch))


def temperature_of(method: Any) -> Any:
    return method.temperature() if hasattr(method, "temperature") else 1.0


def named(method: Any, value: Any) -> dict[str, Tensor]:
    """Parts by name; a scalar is called as its method."""
    return dict(value) if isinstance(value, Mapping) else {name_of(method): value}


def name_of(method: Any) -> str:
    """How a method's part is called: its class or function in lower case."""
    return str(getattr(method, "__name__", type(method).__name__)).lower()
