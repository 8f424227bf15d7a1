"""The class names that a teacher knows of itself, for data that has none."""

from collections import Counter
from pathlib import Path

from kd_lightning.models.published import published
from kd_lightning.runs.students import STUDENT, card_of
from kd_lightning.teachers import exported
from kd_lightning.teachers.opened import PUBLISHED, TeacherSpec
from kd_lightning.utils.checks import UserError


def classes_of(spec: TeacherSpec) -> list[str]:
    """Return the classes of a teacher in the order of its outputs; of a mapping `model.teacher_classes`, its keys.

    Raises:
        UserError: If its weights are not there, it names no classes, or two of them are equal.
    """
    names = _names(spec)
    key = f"model.teacher_classes{spec.suffix}"
    if not names:
        raise UserError(
            f"{key}: neither the data nor the teacher's weights name the classes; list them in the order of its "
            "outputs, as [cat,dog]"
        )
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UserError(f"{key}: the teacher has several outputs {twice[0]!r}; pick some, as {{cat: 281, dog: 207}}")
    if len(names) < 2:
        raise UserError(f"{key}: the teacher must have two or more classes, got {names}")
    return names


def _names(spec: TeacherSpec) -> list[str]:
    if spec.classes is not None:
        return [str(name) for name in spec.classes]
    key = f"model.teacher_weights{spec.suffix}"
    if spec.weights == PUBLISHED:
        return list(published(spec.name, key, images=True).classes)
    path = Path(spec.weights)
    if not path.is_file():
        raise UserError(f"{key}: {path} does not exist")
    if path.suffix in exported.SUFFIXES:
        card = exported.open_exported(path, key)[1]
    else:
        card = card_of(path.parent / STUDENT if path.suffix == ".ckpt" else path)
    return [] if card is None else list(card.classes)
