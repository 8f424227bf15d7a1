"""Checks of stored answers: that they are numbers as they should be, and belong to the samples of the data."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.module import DataModule
from kd_lightning.utils.checks import UserError

TOLERANCE = 0.01  # of a sum of probabilities: they may be rounded, or of half precision


def rows_of_samples(
    tensors: Mapping[str, Tensor], words: Mapping[str, Any], data: DataModule, where: str
) -> Tensor | None:
    """Return the row of each training sample `[N]`, None if they are in order. Raises UserError if one has not one."""
    n = data.sizes["train"]
    count = len(next(tensors[name] for name in ("logits", "probabilities") if name in tensors))
    known = words.get("fingerprint")
    if known is not None and known != data.samples_fingerprint():
        raise UserError(
            f"{where} is of other training samples than those of {data.name}: its fingerprint is {known}, the data's "
            f"{data.samples_fingerprint()}; data.split_seed, val_size and train_size decide them"
        )
    index, names = tensors.get("index"), words.get("names")
    if names is not None:
        return _by_name(names, count, data, where)
    if index is None:
        if count != n:
            raise UserError(f"{where} has answers to {count:,} samples, and {data.name} trains on {n:,}")
        return None
    if index.shape != (count,) or index.is_floating_point():
        raise UserError(f"{where}: index must be whole numbers [{count}], one for each answer, got {list(index.shape)}")
    index = index.long()
    if outside := index[(index < 0) | (index >= n)].tolist():
        raise UserError(f"{where}: index {outside[0]} is none of the {n:,} training samples of {data.name}")
    seen = torch.bincount(index, minlength=n)
    if (twice := (seen > 1).nonzero().flatten()).numel():
        raise UserError(f"{where}: index {int(twice[0])} comes {int(seen[twice[0]])} times")
    if (lacks := (seen == 0).nonzero().flatten()).numel():
        raise UserError(f"{where} lacks an answer to sample {int(lacks[0])}{_more(lacks.numel())} of {n:,}")
    return index.argsort()


def checked_answers(
    tensors: Mapping[str, Tensor], classes: int, where: str
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return logits, classes of the top k, and tail. Raises UserError if they do not fit each other or the data."""
    kind = "logits" if "logits" in tensors else "probabilities"
    values, indices, tail = tensors[kind], tensors.get("indices"), tensors.get("tail")
    if values.ndim != 2 or not values.is_floating_point():
        raise UserError(f"{where}: {kind} must be numbers [N, classes], got {values.dtype} {list(values.shape)}")
    if indices is None:
        if values.shape[1] != classes:
            raise UserError(
                f"{where} has {values.shape[1]} classes, and the data has {classes}; for the k largest of "
                "each sample give indices, for other classes model.teacher_classes"
            )
        if tail is not None:
            raise UserError(f"{where} has a tail without indices: all classes are there")
    else:
        indices = _checked_indices(indices, values, classes, where)
    _finite(values, kind, where)
    left = indices is not None and values.shape[1] < classes
    if kind == "probabilities":
        return _of_probabilities(values.float(), indices, tail, left, where)
    if left and tail is None:
        total = values.float().exp().sum(1)
        if (much := (total > 1 + TOLERANCE).nonzero()).numel():
            raise UserError(
                f"{where} has no tail, and logits of sample {int(much[0])} are no log-probabilities (the sum of exp is "
                f"{float(total[much[0]]):.3g}); give log-probabilities, or tail: ln of the sum of exp of the others"
            )
        tail = _log(1 - total)
    if tail is not None:
        if tail.shape != (len(values),) or not tail.is_floating_point():
            raise UserError(f"{where}: tail must be one number for each of {len(values):,} samples")
        _finite(tail[:, None], "tail", where)
    return values, indices, tail


def _by_name(names: Sequence[str], count: int, data: DataModule, where: str) -> Tensor:
    wanted = data.sample_names()
    if wanted is None:
        raise UserError(f"{where} has file names, and the samples of {data.name} are no files; give index")
    if len(names) != count:
        raise UserError(f"{where} has {len(names):,} names for {count:,} answers")
    row = {name: i for i, name in enumerate(names)}
    if len(row) < len(names):
        twice = next(name for i, name in enumerate(names) if row[name] != i)
        raise UserError(f"{where}: the name {twice!r} comes more than once")
    if lacks := [name for name in wanted if name not in row]:
        raise UserError(f"{where} lacks an answer to {lacks[0]!r}{_more(len(lacks))} of {len(wanted):,}")
    return torch.tensor([row[name] for name in wanted])


def _of_probabilities(
    p: Tensor, indices: Tensor | None, tail: Tensor | None, left: bool, where: str
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    if tail is not None:
        raise UserError(f"{where}: tail is for logits; of probabilities it is what they lack to 1")
    if (p < 0).any():
        raise UserError(f"{where}: probabilities of sample {int((p < 0).any(1).nonzero()[0])} are negative")
    total = p.sum(1)
    wrong = (total > 1 + TOLERANCE) if left else (total - 1).abs() > TOLERANCE
    if (rows := wrong.nonzero()).numel():
        raise UserError(
            f"{where}: probabilities of sample {int(rows[0])} sum to {float(total[rows[0]]):.3g}, not to 1"
            f"{_more(rows.numel())}"
        )
    return _log(p), indices, _log(1 - total) if left else None


def _log(p: Tensor) -> Tensor:
    """Return ln p; of 0 the ln of the least number of float32, -87, which no temperature in use brings back."""
    return p.clamp(min=torch.finfo(torch.float32).tiny).log()


def _checked_indices(indices: Tensor, values: Tensor, classes: int, where: str) -> Tensor:
    if indices.shape != values.shape or indices.is_floating_point():
        raise UserError(
            f"{where}: indices must be whole numbers {list(values.shape)} as the answers, got {list(indices.shape)}"
        )
    indices = indices.long()
    if (outside := indices[(indices < 0) | (indices >= classes)]).numel():
        raise UserError(f"{where}: indices has class {int(outside[0])}, and the data has {classes} classes, from 0")
    ordered = indices.sort(1).values
    if (twice := (ordered[:, 1:] == ordered[:, :-1]).any(1).nonzero()).numel():
        raise UserError(f"{where}: indices of sample {int(twice[0])} name a class twice")
    return indices


def _finite(values: Tensor, name: str, where: str) -> None:
    if (broken := (~values.isfinite()).any(1).nonzero()).numel():
        raise UserError(f"{where}: {name} of row {int(broken[0])}{_more(broken.numel())} are nan or infinite")


def _more(count: int) -> str:
    return f" and {count - 1:,} more" if count > 1 else ""
