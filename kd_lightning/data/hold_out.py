"""Samples of the training split that are held out for a split that has no file or folder of its own."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.module import Split
from kd_lightning.data.split import stratified_fraction
from kd_lightning.utils.checks import UserError
from kd_lightning.utils.console import say


def check_classes(labels: Tensor, classes: Sequence[str], missing: Sequence[Split], noun: str, where: Any) -> None:
    """Raise UserError if a class cannot be divided into train and the splits that are held out.

    A line names classes that differ in capital letters alone, which are often one.

    Args:
        labels: Classes of the training samples `[N]`.
        classes: Their names.
        missing: The splits.
        noun: What the samples are, such as `sentences`.
        where: File or folder, for messages.
    """
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    needed = 1 + len(missing)
    few = [f"{name} has {count}" for name, count in zip(classes, counts, strict=True) if count < needed]
    if few:
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        helps = "val" in missing and min(counts) == needed - 1
        without = ", or train without validation (data.val_size=0)" if helps else ""
        raise UserError(
            f"every class of {where} needs {needed} or more {noun}, one for each of "
            f"{', '.join(['train', *sorted(missing)])}: {', '.join(few[:5])}{more}; add {noun} or remove the "
            f"class{without}"
        )
    folded = Counter(name.casefold() for name in classes)
    if alike := [name for name in classes if folded[name.casefold()] > 1]:
        say(f"{where}: classes that differ in capital letters alone: {', '.join(alike[:6])}", detail=True)


def tell_two_classes(contents: Sequence[Any], labels: Tensor, noun: str, where: Any) -> None:
    """Tell how many training samples have a copy in another class; see `hold_out` for the arguments."""
    first: dict[Any, int] = {}
    torn = sum(first.setdefault(content, y) != y for content, y in zip(contents, labels.tolist(), strict=True))
    if torn:
        told = f"{torn:,} of {len(labels):,} training {noun} have a copy in another class; no model can tell them apart"
        say(f"warning: {where}: {told}", detail=True)


def hold_out(
    split: Split,
    contents: Sequence[Any],
    labels: Tensor,
    classes: Sequence[str],
    fraction: float,
    seed: int,
    noun: str,
    where: Any,
) -> tuple[Tensor, Tensor]:
    """Return the positions that stay in train, without copies of what is held out, and those that are held out.

    A line tells how many.

    Args:
        split: What they are held out for.
        contents: What each training sample is, so that equal ones are copies.
        labels: Their classes `[N]`.
        classes: Names of the classes.
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
    left = torch.bincount(labels[keep], minlength=len(classes))
    if not left.all():
        raise UserError(
            f"class {classes[int(left.argmin())]} of {where} would have no {noun} left to train; add other {noun}, "
            f"give {split} its own, or lower data.{split}_size"
        )
    return keep, taken
