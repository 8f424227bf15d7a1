"""Samples of the training split that are held out for a split that has no file or folder of its own."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.module import Split
from kd_lightning.data.split import stratified_fraction
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say


def hold_out(
    split: Split, contents: Sequence[Any], labels: Tensor, fraction: float, seed: int, noun: str, where: Any
) -> tuple[Tensor, Tensor]:
    """Return the positions that stay in train, without copies of what is held out, and those that are held out.

    A line tells how many.

    Args:
        split: What they are held out for.
        contents: What each training sample is, so that equal ones are copies.
        labels: Their classes `[N]`.
        fraction: Fraction that is held out, stratified.
        seed: Chooses them.
        noun: What the samples are, such as `sentences`.
        where: File or folder, for messages.

    Raises:
        UserError: If a class would have no sample left to train.
    """
    rest, taken = stratified_fraction(labels, fraction, seed)
    held = {contents[i] for i in taken.tolist()}
    keep = torch.tensor([i for i in rest.tolist() if contents[i] not in held], dtype=torch.long)
    gone = len(rest) - len(keep)
    also = f"; left out {gone} × copy of one of them in train" if gone else ""
    say(
        f"{split}: held out {len(taken):,} of {len(labels):,} training {noun} "
        f"(data.{split}_size={fraction}, data.split_seed={seed}){also}",
        detail=True,
    )
    if not torch.bincount(labels[keep], minlength=int(labels.max()) + 1).all():
        raise UserError(f"{where}: a class would have no {noun} left to train; add others, or give {split} its own")
    return keep, taken
