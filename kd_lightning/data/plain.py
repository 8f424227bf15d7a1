"""Batches of any data loader as `Batch`."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from kd_lightning.types import UNLABELED, Batch
from kd_lightning.utils.checks import UserError, did_you_mean

LABELS = ("labels", "label", "y")
INPUTS = ("x", "image", "images", "pixel_values", "inputs")


def as_batch(batch: Any, tasks: Sequence[str] = ("",)) -> Batch:
    """Return a `Batch` of `(x, y)` or of a dictionary; a `Batch` stays as it is.

    A dictionary has its labels under `labels`, `label` or `y`. If one other entry is left and its key is a usual name
    of an input (`x`, `image`, `pixel_values` …), that tensor is x; else x is the dictionary of the others, which models
    take as keyword arguments. The positions of the samples are unknown: `index` is -1. With several `tasks`, the labels
    are a dictionary by task.

    Raises:
        UserError: If the batch is nothing of that kind.
    """
    found = _as_batch(batch)
    several = "" not in tasks
    if several != isinstance(found.y, Mapping):
        got = f"by task ({', '.join(found.y)})" if isinstance(found.y, Mapping) else "one tensor"
        wanted = f"a dictionary {{{', '.join(tasks)}}}" if several else "one tensor [B]"
        raise UserError(f"the labels of a batch are {got}, wanted {wanted}")
    if several and (lacks := [task for task in tasks if task not in found.y]):
        raise UserError(
            f"a batch has no labels for the task {lacks[0]!r}{did_you_mean(lacks[0], found.y)}; a sample without one "
            f"has the label {UNLABELED}"
        )
    return found


def _as_batch(batch: Any) -> Batch:
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, Mapping):
        key = next((k for k in LABELS if k in batch), None)
        if key is None:
            keys = ", ".join(map(str, batch))
            raise UserError(f"a batch needs labels under {', '.join(LABELS)}, got the keys {keys}")
        rest = {k: v for k, v in batch.items() if k != key}
        x = next(iter(rest.values())) if len(rest) == 1 and next(iter(rest)) in INPUTS else rest
        return _unnumbered(x, batch[key])
    if isinstance(batch, tuple | list) and len(batch) == 2:
        return _unnumbered(batch[0], batch[1])
    raise UserError(f"a batch must be (x, y), a dictionary with labels, or a Batch, got {type(batch).__name__}")


def _unnumbered(x: Any, y: Any) -> Batch:
    labels: Tensor = tree_leaves(y)[0]
    return Batch(x, y, torch.full_like(labels, -1))
