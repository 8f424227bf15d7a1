"""The two values that travel between the parts. Shapes: B samples, C classes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One batch; teacher and student are given the same one."""

    x: Any
    """What a model takes: images `[B, 3, H, W]`, token ids, a dict of tensors."""
    y: Tensor
    """Class indices `[B]`, int64."""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which no one needs
    """Position of each sample in its split `[B]`, int64."""
    view: Tensor | None = None
    """Which of the finitely many augmented views each sample is `[B]`, int64; None if there is no such number."""


class Outputs(NamedTuple):
    """What a model answers to a batch."""

    logits: Tensor
    """`[B, C]`, before softmax; of K teachers `[K, B, C]`."""
    features: Mapping[str, Tensor] = MappingProxyType({})
    """Layer name → activation, only of the layers that the loss asked for."""
