"""Data sets that are small enough to stay on the training device."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.images.augment import Augment
from kd_lightning.data.images.placement import check_place
from kd_lightning.data.images.resident import ResidentImages
from kd_lightning.data.module import DataModule
from kd_lightning.data.split import stratified
from kd_lightning.utils.checks import UserError, integer


class ResidentDataModule(DataModule):
    """A data set of small images, of which `val_size` training images are held out by `split_seed`.

    Both `val_size` and `train_size` are numbers of images and stratified; `train_size` None trains on all the rest.
    """

    total: int
    """Images from which training and validation images are taken."""

    def __init__(
        self,
        *,
        augment: Mapping[str, Any] | Augment,
        val_size: int,
        train_size: int | None,
        device: str,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.augment = Augment.parse(augment)
        self.num_views = self.augment.num_views
        self.device = check_place(device)
        self.val_size = integer("data.val_size", val_size, least=0, most=self.total - self.num_classes)
        if 0 < self.val_size < self.num_classes:
            raise UserError(
                f"data.val_size must be 0 or at least one image per class ({self.num_classes}), got {val_size}"
            )
        self.train_size = train_size
        if train_size is not None:
            integer("data.train_size", train_size, least=self.num_classes, most=self.total - self.val_size)

    @abstractmethod
    def read(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Images and labels for training and validation, then those of the test split.

        uint8 `[N, H, W, 3]` and int64 `[N]`. Raises UserError if they are not there.
        """

    def setup(self, stage: str | None = None) -> None:
        """Reads and splits the data once, whatever the stage."""
        if self.splits:
            return
        images, labels, test_images, test_labels = self.read()
        train, val = stratified(labels, self.val_size, self.split_seed)
        if self.train_size is not None:
            _, few = stratified(labels[train], self.train_size, self.split_seed)
            train = train[few]
        plain = Augment()
        self.splits = {
            "train": ResidentImages(images[train], labels[train], self.normalize, self.augment, self.device),
            "val": ResidentImages(images[val], labels[val], self.normalize, plain, self.device),
            "test": ResidentImages(test_images, test_labels, self.normalize, plain, self.device),
        }

    def epoch_views(self, epoch: int) -> Tensor:
        """The view that every training sample has in `epoch`, `[N]`, on the CPU; where views are numbered."""
        return self.augment.view(self.seed, epoch, torch.arange(self.sizes["train"]))

    def identity(self) -> dict[str, Any]:
        """See `DataModule.identity`."""
        return {
            "name": self.name,
            "normalize": self.normalize._asdict(),
            "augment": asdict(self.augment),
            "sizes": [self.total, self.val_size, self.train_size],
            "split_seed": self.split_seed,
        }
