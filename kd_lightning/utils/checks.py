"""Checks of values that a user typed. Each failure is one line: the key, what is wanted, what was got, what to do."""

import difflib
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


class UserError(ValueError):
    """A mistake in what the user typed or keeps on disk; its message is shown without a traceback."""

    status = 2
    """Exit status of the command."""


class LostProcess(UserError):
    """Another process that the training needs ended before its time."""

    status = 1


@contextmanager
def of_task(task: str) -> Iterator[None]:
    """Let each UserError from inside begin with the task that it is about; `""` is the only task of ordinary data."""
    try:
        yield
    except UserError as e:
        if not task or type(e) is not UserError:
            raise
        raise UserError(f"task {task}: {e}") from e


def number(key: str, value: Any, *, gt: float | None = None, ge: float | None = None, le: float | None = None) -> float:
    """Return `value` as a finite float within the bounds (>, >=, <=). Raises UserError."""
    _check_range(key, value, (int, float), "a number", {">": gt, ">=": ge, "<=": le})
    return float(value)


def integer(key: str, value: Any, *, ge: int | None = None, le: int | None = None) -> int:
    """Return `value` as an int within the bounds (>=, <=). Raises UserError."""
    _check_range(key, value, int, "a whole number", {">=": ge, "<=": le})
    return int(value)


def _check_range(key: str, value: Any, kind: Any, noun: str, bounds: Mapping[str, float | None]) -> None:
    given = {sign: bound for sign, bound in bounds.items() if bound is not None}
    compare = {">": operator.gt, ">=": operator.ge, "<=": operator.le}
    ok = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    if not ok or not all(compare[sign](value, bound) for sign, bound in given.items()):
        wanted = " and ".join(f"{sign} {bound}" for sign, bound in given.items())
        raise UserError(f"{key} must be {noun} {wanted}".rstrip() + f", got {value!r}")


def choice(key: str, value: Any, allowed: Sequence[Any]) -> Any:
    """Return `value` if it is one of `allowed`. Raises UserError with the nearest name."""
    if value in allowed:
        return value
    raise UserError(f"{key} must be one of {', '.join(map(str, allowed))}, got {value!r}{did_you_mean(value, allowed)}")


def did_you_mean(value: Any, known: Iterable[Any]) -> str:
    """Return `"; did you mean 'resnet50'?"` with the nearest name, or an empty string if none is near."""
    near = difflib.get_close_matches(str(value), [str(k) for k in known], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
