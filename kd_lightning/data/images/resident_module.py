"""Data sets that are small enough to stay on the training device."""

import os
from abc import abstractmethod
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kd_lightning.data.images.augment import Augment
from kd_lightning.data.images.decode import Preprocess
from kd_lightning.data.images.module import ImageDataModule
from kd_lightning.data.images.placement import Placement, check_place
from kd_lightning.data.images.resident import ResidentImages
from kd_lightning.data.split import stratified
from kd_lightning.types import Source
from kd_lightning.utils.checks import UserError, integer


class ResidentDataModule(ImageDataModule):
    """A data set of small images, of which a part of the training images is held out by `split_seed`.

    Args:
        augment: Keys of `Augment`.
        val_size: Number of training images held out for validation, stratified; 0 for none.
        train_size: Number of the remaining images that are trained on, stratified; None for all.
        device: Place of the pixels: `auto`, `cpu`, `cuda` or `stream`, see `Placement`.
        common: Arguments of `ImageDataModule`.
    """

    total: int
    """Images from which training and validation images are taken."""
    cheaper = "fewer images (data.train_size=5000), small networks (model.teacher=resnet20 model.student=resnet8)"

    def __init__(
        self,
        *,
        augment: Mapping[str, Any] | Augment,
        val_size: int,
        train_size: int | None = None,
        device: str = "auto",
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.augment = Augment.parse(augment)
        self.num_views = self.augment.num_views
        self.device = check_place(device)
        self.val_size = integer("data.val_size", val_size, ge=0, le=self.total - len(self.own_classes))
        if 0 < self.val_size < len(self.own_classes):
            raise UserError(
                f"data.val_size must be 0 or at least one image per class ({len(self.own_classes)}), got {val_size}"
            )
        self.train_size = train_size
        if train_size is not None:
            integer("data.train_size", train_size, ge=len(self.own_classes), le=self.total - self.val_size)

    @abstractmethod
    def read(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return images and labels for training and validation, then those of the test split.

        Images are uint8 `[N, H, W, 3]`, labels int64 `[N]`. Raises UserError if they are not there.
        """

    def prepare_data(self) -> None:
        """Decode the pictures of `unlabeled_root` once; call this before what a subclass prepares. Raises UserError."""
        _ = self._unlabeled_pixels

    def setup(self, stage: str | None = None) -> None:
        """Read and split the data once, whatever the stage."""
        if self.splits:
            return
        images, labels, test_images, test_labels = self.read()
        train, val = stratified(labels, self.val_size, self.split_seed)
        if self.train_size is not None:
            _, few = stratified(labels[train], self.train_size, self.split_seed)
            train = train[few]
        more = self._unlabeled_pixels
        train_images = torch.cat([images[train], more])
        train_labels = self.few_labels(labels[train], len(more))
        side = self.image_size + 2 * self.augment.pad
        size = 3 * (len(train_images) * side**2 + (len(val) + len(test_images)) * self.image_size**2)
        placement, plain = Placement(self.device, size), Augment()
        self._train = ResidentImages(train_images, train_labels, self.normalize, self.augment, placement)
        self.splits = {
            "train": self._train,
            "val": ResidentImages(images[val], labels[val], self.normalize, plain, placement),
            "test": ResidentImages(test_images, test_labels, self.normalize, plain, placement),
        }

    @cached_property
    def _unlabeled_pixels(self) -> Tensor:
        """Pictures of `unlabeled_root`, uint8 `[N, image_size, image_size, 3]`."""
        if self.unlabeled_root is None:
            return torch.empty(0, self.image_size, self.image_size, 3, dtype=torch.uint8)
        read = Preprocess(self.image_size, self.margin, self.normalize).read
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return torch.stack(list(pool.map(read, self.unlabeled.paths())))

    def drop_unlabeled(self) -> None:
        self._train.partners = self.labelled
        super().drop_unlabeled()

    def epoch_views(self, epoch: int) -> Tensor:
        return self.augment.view(self.view_seed, epoch, torch.arange(self.sizes["train"]))

    def plain_train(self) -> Source:
        train = self.splits["train"]
        assert isinstance(train, ResidentImages)
        return train.plain()

    def identity(self) -> dict[str, Any]:
        return super().identity() | {
            "augment": asdict(self.augment),
            "sizes": [self.total, self.val_size, self.train_size],
        }
