"""The two values that travel between the parts. Shapes: B samples, C classes."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor


class Mixed(NamedTuple):
    """What else is in each picture of a batch, where two were mixed into one."""

    y: Tensor
    """Class of the other image `[B]`, int64."""
    share: Tensor
    """How much of the picture is the sample itself `[B]`, in [0, 1]; by rule the larger part."""


class Batch(NamedTuple):
    """One batch; teacher and student are given the same one."""

    x: Any
    """What a model takes: images `[B, 3, H, W]`, token ids, a dict of tensors."""
    y: Tensor
    """Class indices `[B]`, int64; of a mixed picture, the class of its larger part."""
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which no one needs
    """Position of each sample in its split `[B]`, int64."""
    view: Tensor | None = None
    """Which of the finitely many augmented views each sample is `[B]`, int64; None if there is no such number."""
    mixed: Mixed | None = None
    """None where every picture shows one sample."""


class Outputs(NamedTuple):
    """What a model answers to a batch."""

    logits: Tensor
    """`[B, C]`, before softmax; of K teachers `[K, B, C]`."""
    features: Mapping[str, Tensor] = MappingProxyType({})
    """Layer name → activation, only of the layers that the loss asked for."""
