"""Batches of any data loader as `Batch`."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kd_lightning.types import Batch
from kd_lightning.utils.checks import UserError

LABELS = ("labels", "label", "y")
INPUTS = ("x", "image", "images", "pixel_values", "inputs")


def as_batch(batch: Any) -> Batch:
    """Return a `Batch` of `(x, y)` or of a dictionary; a `Batch` stays as it is.

    A dictionary has its labels under `labels`, `label` or `y`. If one other entry is left and its key is a usual name
    of an input (`x`, `image`, `pixel_values` …), that tensor is x; else x is the dictionary of the others, which models
    take as keyword arguments. The positions of the samples are unknown: `index` is -1.

    Raises:
        UserError: If the batch is nothing of that kind.
    """
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


def _unnumbered(x: Any, y: Tensor) -> Batch:
    return Batch(x, y, torch.full_like(y, -1))
