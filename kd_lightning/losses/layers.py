"""Layers of student and teacher that a method compares."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from kd_lightning.losses.networks import Networks
from kd_lightning.types import Outputs
from kd_lightning.utils.checks import UserError

Shape = tuple[int, ...]
EACH_STAGE = {"all", "before_relu"}


class Layers(nn.Module):
    """Pairs of layers, chosen by `student_layers` and `teacher_layers`; see `Probe.layers` for what these may be.

    Where every stage is compared (`all`, `before_relu`) and one network has more, its first ones are left out.

    Args:
        student_layers: Layers of the student.
        teacher_layers: Layers of the teacher, as many.
        dims: Number of dimensions that the method can compare, batch included: 4 for maps `[B, C, H, W]`, 2 for
            vectors, None for any.
    """

    def __init__(self, student_layers: Any, teacher_layers: Any, dims: int | None = None):
        super().__init__()
        self.wanted = {"student": student_layers, "teacher": teacher_layers}
        self.dims = dims
        self.student: tuple[str, ...] = ()
        self.teacher: tuple[str, ...] = ()

    def find(self, networks: Networks) -> list[tuple[Shape, Shape]]:
        """Resolve the names and return the shapes of each pair, without the batch. Raises UserError."""
        assert networks.teacher is not None
        s = networks.student.layers(self.wanted["student"], "loss.student_layers")
        t = networks.teacher.layers(self.wanted["teacher"], "loss.teacher_layers")
        if EACH_STAGE & {w for w in self.wanted.values() if isinstance(w, str)}:
            count = min(len(s), len(t))
            s, t = s[-count:], t[-count:]
        if len(s) != len(t):
            raise UserError(
                f"loss.student_layers and loss.teacher_layers must be as many, got {len(s)} ({', '.join(s)}) "
                f"and {len(t)} ({', '.join(t)})"
            )
        self.student, self.teacher = s, t
        shapes = networks.student.shapes(s), networks.teacher.shapes(t)
        for whose, names, found in zip(("student", "teacher"), (s, t), shapes, strict=True):
            for name, shape in zip(names, found, strict=True):
                if self.dims is not None and len(shape) + 1 != self.dims:
                    wants = "maps [B, C, H, W]" if self.dims == 4 else "vectors [B, D]"
                    found_shape = ", ".join(["B", *map(str, shape)])
                    raise UserError(
                        f"loss.{whose}_layers: {name} gives [{found_shape}], but this loss compares {wants}"
                    )
        return list(zip(*shapes, strict=True))

    def pairs(self, student: Outputs, teacher: Outputs | None) -> list[tuple[Tensor, Tensor]]:
        """Return the activations of each pair: the student's, the teacher's."""
        assert teacher is not None
        return [(student.features[s], teacher.features[t]) for s, t in zip(self.student, self.teacher, strict=True)]

    def pair(self, student: Outputs, teacher: Outputs | None) -> tuple[Tensor, Tensor]:
        """Return the activations of the only pair."""
        return self.pairs(student, teacher)[0]


def one(key: str, wanted: Any) -> Any:
    """Return `wanted` if it chooses a single layer. Raises UserError."""
    if wanted in EACH_STAGE if isinstance(wanted, str) else isinstance(wanted, Sequence) and len(wanted) != 1:
        raise UserError(
            f"{key} must be one layer for this loss: last, pooled, a stage's number or a name, got {wanted!r}"
        )
    return wanted
