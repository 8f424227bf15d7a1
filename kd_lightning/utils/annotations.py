"""Values that a user typed, against the annotations of the class that takes them."""

import inspect
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from kd_lightning.utils.checks import UserError

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}


def check_annotations(target: Any, values: Mapping[str, Any], key: str) -> None:
    """Check each value against the type that `target` annotates; other types than plain ones take any value.

    A library may store a value unseen and fail on it in the middle of a training.

    Args:
        target: A class or function.
        values: Its arguments by name.
        key: Name of the node of these values in messages.

    Raises:
        UserError: If a value does not fit.
    """
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):  # annotations that exist for type checkers only
        return
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name]):
            raise UserError(f"{key}.{name} must be {_wanted(hints[name])}, got {value!r}")


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if hint in _WORDS else True


def _wanted(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_wanted(one) for one in get_args(hint))
    return ", ".join(map(repr, get_args(hint))) if get_origin(hint) is Literal else _WORDS[hint]
