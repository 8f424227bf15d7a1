"""Classes of a teacher that has others than the data, or in another order."""

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from kd_lightning.models import head
from kd_lightning.models.checkpoints import head_rows
from kd_lightning.models.published import CLASSES, imagenet_classes
from kd_lightning.utils.checks import UserError, did_you_mean, integer

NEAR = 3


def chosen_classes(
    wanted: Sequence[str] | Mapping[str, Any] | None, own: Sequence[str], classes: Sequence[str], suffix: str
) -> tuple[list[str], list[int] | None]:
    """Return the names of the teacher's outputs, and its output for each class of the data; None for the same order.

    Args:
        wanted: `model.teacher_classes`.
        own: Names that the teacher itself knows; those of the data if it knows none.
        classes: Classes of the data.
        suffix: Suffix of the key in messages.

    Raises:
        UserError: If a class of the data has no output; the message lists names that are near.
    """
    key = f"model.teacher_classes{suffix}"
    if isinstance(wanted, Mapping):
        return list(own), _picked(wanted, own, classes, key)
    names = list(own if wanted is None else wanted)
    if lacks := [name for name in classes if name not in names]:
        if wanted is not None:
            raise UserError(
                f"{key} lacks {lacks[0]!r}{did_you_mean(lacks[0], names)}; it must name every class of the data"
            )
        raise UserError(
            f"model.teacher{suffix}: its {len(names):,} classes lack {len(lacks)} of the data's {len(classes)}: "
            f"{_near(lacks, names)}; pick one of its classes for each with {key}={{{lacks[0]}: NAME, …}}, or name its "
            "outputs in their order as a list"
        )
    if names == list(classes):
        return names, None
    return names, [_place(name, names, f"{key}.{name}") for name in classes]


def other_classes(model: nn.Module, weights: str, classes: Sequence[str], suffix: str) -> str:
    """Return what to do, if the classifier in a weights file has another number of outputs; else nothing."""
    rows = head_rows(Path(weights), head(model))
    if rows is None or rows == len(classes):
        return ""
    names = imagenet_classes() if rows == CLASSES else []
    near = f"; of ImageNet's names, near are: {_near(classes, names)}" if names else ""
    return (
        f"; its classifier has {rows:,} classes and the data {len(classes)}: name them, in the order of its outputs, "
        f"with model.teacher_classes{suffix}=[…]{near}"
    )


def _picked(wanted: Mapping[str, Any], own: Sequence[str], classes: Sequence[str], key: str) -> list[int]:
    given = {str(name): value for name, value in wanted.items()}
    for name in given:
        if name not in classes:
            raise UserError(f"{key}: {name!r} is no class of the data{did_you_mean(name, classes)}")
    if lacks := [name for name in classes if name not in given]:
        raise UserError(f"{key} lacks {lacks[0]!r}; it must pick an output for every class of the data")
    order = []
    for name in classes:
        value = given[name]
        if isinstance(value, int):
            order.append(integer(f"{key}.{name}", value, ge=0, le=len(own) - 1))
        elif value in own:
            order.append(_place(value, own, f"{key}.{name}"))
        else:
            raise UserError(f"{key}.{name}: the teacher has no class {value!r}{did_you_mean(value, own)}")
    return order


def _place(name: str, names: Sequence[str], key: str) -> int:
    """Return the output of a name. Raises UserError if several have it, as a crane may be a bird or a machine."""
    places = [i for i, other in enumerate(names) if other == name]
    if len(places) > 1:
        told = ", ".join(map(str, places))
        raise UserError(f"{key}: the teacher has {name!r} at the outputs {told}; give the number")
    return places[0]


def _near(names: Sequence[str], known: Sequence[str]) -> str:
    """Return for some names those of `known` that contain them or are spelled alike."""
    told = []
    for name in list(names)[:NEAR]:
        parts = [other for other in known if name.lower() in other.lower().split()]
        near = (parts + [n for n in difflib.get_close_matches(name, known, NEAR) if n not in parts])[:NEAR]
        told.append(f"{name!r} (near: {', '.join(near) or 'none'})")
    return ", ".join(told) + (", …" if len(names) > NEAR else "")
