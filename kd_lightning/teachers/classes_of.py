"""The class names that teachers know of themselves, for data that has none."""

from collections.abc import Sequence
from pathlib import Path

from kd_lightning.models.published import published
from kd_lightning.runs.students import card_of
from kd_lightning.teachers import exported
from kd_lightning.teachers.opened import PUBLISHED, TeacherSpec
from kd_lightning.utils.checks import UserError


def classes_of(specs: Sequence[TeacherSpec]) -> Sequence[str]:
    """Return the classes of the first teacher that names them, in the order of its outputs.

    A mapping `model.teacher_classes` picks some: then they are its keys.

    Raises:
        UserError: If none does.
    """
    for spec in specs:
        if spec.classes is not None:
            return [str(name) for name in spec.classes]
        if spec.weights == PUBLISHED:
            return published(spec.name, f"model.teacher_weights{spec.suffix}", images=True).classes
        path = Path(spec.weights)
        if path.suffix in exported.SUFFIXES:
            card = exported.open_exported(path, f"model.teacher_weights{spec.suffix}")[1]
        else:
            card = card_of(path)
        if card is not None:
            return card.classes
    raise UserError(
        "model.teacher_classes: neither the data nor the teacher's weights name the classes; list them in the order of "
        "its outputs, as [cat,dog]"
    )
