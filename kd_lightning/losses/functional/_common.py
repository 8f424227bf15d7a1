"""Helpers that the formulas share: full precision, and checks of shapes."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor

P = ParamSpec("P")


def full_precision(formula: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Run `formula` outside autocast, with float16 and bfloat16 tensors as float32; float64 stays float64.

    Exponentials, squares and matrix products of a loss overflow or round away in half precision (fp16 ends at 65,504),
    and autocast would send even a float32 matrix product there.
    """

    @wraps(formula)
    def run(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        with torch.autocast(_device(args + tuple(kwargs.values())), enabled=False):
            return formula(*_upcast(args), **{key: _upcast(value) for key, value in kwargs.items()})

    return run


def full(x: Tensor) -> Tensor:
    """Return float16 and bfloat16 as float32; anything else unchanged."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _upcast(value: Any) -> Any:
    if isinstance(value, Tensor):
        return full(value)
    return type(value)(map(_upcast, value)) if isinstance(value, (list, tuple)) else value


def _device(value: Any) -> str:
    """Return the device type of the first tensor in `value`, a tensor or nested lists. Raises ValueError if empty."""
    while not isinstance(value, Tensor):
        value = next((v for v in value if isinstance(v, (Tensor, list, tuple))), None)
        if value is None:
            raise ValueError("a loss needs tensors, got an empty list")
    device: str = value.device.type
    return device


def soften(z: Tensor, temperature: float | Tensor) -> Tensor:
    """Return z/T. Raises ValueError if T is a number <= 0; reading a tensor would wait for the device."""
    if not isinstance(temperature, Tensor) and not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature!r}")
    return z / temperature


def same_shape(name: str, s: Tensor, t: Tensor) -> None:
    """Raise ValueError where broadcasting would silently compare the wrong elements."""
    if s.shape != t.shape:
        raise ValueError(f"{name} wants student and teacher of one shape, got {list(s.shape)} and {list(t.shape)}")


def same_batch(name: str, s: Tensor, t: Tensor, ge: int = 1) -> None:
    """Raise ValueError unless both hold the same number of samples, `ge` or more."""
    if len(s) != len(t):
        raise ValueError(f"{name} wants the same samples of student and teacher, got {len(s)} and {len(t)}")
    if len(s) < ge:
        raise ValueError(f"{name} compares samples with each other and needs a batch of {ge} or more, got {len(s)}")
