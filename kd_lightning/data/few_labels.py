"""Data of which only a fraction of the training samples have a label."""

from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.module import DataModule
from kd_lightning.data.split import hide_labels
from kd_lightning.types import UNLABELED
from kd_lightning.utils.checks import UserError, number


class FewLabels(DataModule):
    """Base class of the data sets that can hide labels; `setup` of a subclass gives its labels to `few_labels`.

    Args:
        label_fraction: Fraction of the training samples, stratified and chosen by `split_seed`, that keep their labels;
            the others stay in the training split with `UNLABELED`. None for all.
        common: Arguments of `DataModule`.
    """

    def __init__(self, *, label_fraction: float | None = None, **common: Any) -> None:
        super().__init__(**common)
        if label_fraction is not None:
            label_fraction = number("data.label_fraction", label_fraction, gt=0, le=1)
        self.label_fraction = None if label_fraction == 1 else label_fraction  # all of them are no other data
        self._labelled: Tensor | None = None

    def few_labels(self, labels: Tensor, unlabeled: int = 0) -> Tensor:
        """Return the labels of the training split, `UNLABELED` for samples outside `label_fraction` and further ones.

        Args:
            labels: Classes `[N]` of the data set's own training samples.
            unlabeled: Number of samples after them, M.

        Returns:
            int64 `[N + M]`.

        Raises:
            UserError: If there are no labels of which a fraction could be kept.
        """
        if self.label_fraction is not None:
            if (labels == UNLABELED).all():
                raise UserError("data.label_fraction: no training sample has a label; leave it out")
            labels = hide_labels(labels, self.label_fraction, self.split_seed)
        labels = torch.cat([labels, labels.new_full((unlabeled,), UNLABELED)])
        known = labels != UNLABELED
        self._labelled = None if known.all() else known.nonzero().flatten()
        return labels

    @property
    def labelled(self) -> Tensor | None:
        self.setup()
        return self._labelled

    def label_identity(self) -> float | None:
        return self.label_fraction
