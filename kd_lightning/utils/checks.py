"""Checks of values that a user typed. Each failure is one line: the key, what is wanted, what was got, what to do."""

import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any


class UserError(ValueError):
    """A mistake in what the user typed or keeps on disk; its message is shown without a traceback."""


def number(
    key: str, value: Any, *, above: float | None = None, least: float | None = None, most: float | None = None
) -> float:
    """Returns `value` as a finite float within the bounds (`above` is exclusive). Raises UserError."""
    _check_range(key, value, (int, float), "a number", above=above, least=least, most=most)
    return float(value)


def integer(key: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """Returns `value` as an int within the bounds. Raises UserError."""
    _check_range(key, value, int, "a whole number", least=least, most=most)
    return int(value)


def _check_range(
    key: str,
    value: Any,
    kind: Any,
    noun: str,
    *,
    above: float | None = None,
    least: float | None = None,
    most: float | None = None,
) -> None:
    ok = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    ok = (
        ok
        and (above is None or value > above)
        and (least is None or value >= least)
        and (most is None or value <= most)
    )
    if not ok:
        bounds = (
            [f"> {above}"] * (above is not None)
            + [f">= {least}"] * (least is not None)
            + [f"<= {most}"] * (most is not None)
        )
        raise UserError(f"{key} must be {noun} {' and '.join(bounds)}".rstrip() + f", got {value!r}")


def choice(key: str, value: Any, allowed: Sequence[Any]) -> Any:
    """Returns `value` if it is one of `allowed`. Raises UserError with the nearest name."""
    if value in allowed:
        return value
    raise UserError(f"{key} must be one of {', '.join(map(str, allowed))}, got {value!r}{did_you_mean(value, allowed)}")


def did_you_mean(value: Any, known: Iterable[Any]) -> str:
    """`"; did you mean 'resnet50'?"`, or an empty string if nothing is near."""
    near = difflib.get_close_matches(str(value), [str(k) for k in known], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
