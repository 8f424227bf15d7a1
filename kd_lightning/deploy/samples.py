"""Inputs of models outside a data loader: a tensor of samples, or a dictionary of tensors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from kd_lightning.data.module import DataModule, Split

BATCH = 256


def samples(data: DataModule, split: Split, count: int | None = None) -> tuple[Any, Any]:
    """Return inputs and labels `[N]` of `count` samples, spread over a split; None for all.

    Labels are by task if there are several. Training samples are those of the first epoch. Batches whose second
    dimension differs, as that of sentences does, are filled up with zeros to the largest one.
    """
    order = spread(data, split, count)
    batches = list(data.splits[split].batches(order, BATCH, data.view_seed, 0, torch.device("cpu")))
    inputs = tree_map(_joined, *(batch.x for batch in batches))
    return inputs, joined([batch.y for batch in batches])


def joined(parts: Sequence[Any]) -> Any:
    """Return tensors `[N, …]` one after the other, by task if they are dictionaries."""
    return tree_map(lambda *tensors: torch.cat(tensors), *parts)


def spread(data: DataModule, split: Split, count: int | None = None) -> Tensor:
    """Return the positions of `count` samples at even distances in a split; None for all."""
    n = len(data.splits[split])
    return torch.linspace(0, n - 1, min(count or n, n), dtype=torch.float64).round().long()


def _joined(*parts: Tensor) -> Tensor:
    if parts[0].dim() > 1:
        width = max(part.shape[1] for part in parts)
        parts = tuple(_wider(part, width) for part in parts)
    return torch.cat(parts).contiguous()


def _wider(part: Tensor, width: int) -> Tensor:
    missing = width - part.shape[1]
    return torch.cat([part, part.new_zeros(len(part), missing, *part.shape[2:])], 1) if missing else part


def size(inputs: Any) -> int:
    """Return the number of samples of `inputs`."""
    return len(tree_leaves(inputs)[0])


def split(inputs: Any, count: int) -> list[Any]:
    """Return `inputs` in parts of `count` samples; the last may have fewer."""
    starts = range(0, size(inputs), count)
    return [tree_map(lambda t, start=start: t[start : start + count].contiguous(), inputs) for start in starts]


def repeat(sample: Any, count: int) -> Any:
    """Return a batch of `count` times the one sample in `sample`."""
    return tree_map(lambda t: t.expand(count, *t.shape[1:]).contiguous(), sample)
