"""What every data set of the project offers, and the data sets that are small enough to stay on the device."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from torch import Tensor

from kd_lightning.checks import UserError, integer
from kd_lightning.data.augment import Augment
from kd_lightning.data.loader import Loader, Source
from kd_lightning.data.normalize import Normalize
from kd_lightning.data.resident import ResidentImages
from kd_lightning.data.split import stratified

Split = Literal["train", "val", "test"]
MAX_SEED = 2**32 - 1


class DataModule(LightningDataModule):
    """Loaders of `Batch`, with a trainer or without (then rank 0 of 1, epoch 0, on the CPU).

    The attributes that the rest of the project uses, besides the constructor's own arguments:
    `name`, `classes`, `num_classes`, `image_size` (pixels; images are square), `normalize` (`Normalize(mean, std)`),
    `num_views` (how many augmented views a training image has; None if they are not numbered), `sizes` (samples per
    split, after `setup`) and `fingerprint()`. The constructor checks every value and does not touch the disk;
    `prepare_data` and `setup` may be called any number of times.
    """

    name: str
    image_size: int
    num_views: int | None

    def __init__(
        self,
        *,
        normalize: Mapping[str, Any] | Normalize,
        batch_size: int,
        eval_batch_size: int | None,
        split_seed: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.normalize = Normalize.parse(normalize)
        self.batch_size = integer("data.batch_size", batch_size, least=1)
        if eval_batch_size is None:
            eval_batch_size = 4 * self.batch_size
        self.eval_batch_size = integer("data.eval_batch_size", eval_batch_size, least=1)
        self.split_seed = integer("data.split_seed", split_seed, least=0, most=MAX_SEED)
        self.seed = integer("data.seed", seed, least=0, most=MAX_SEED)
        self.splits: dict[Split, Source] = {}

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Fills `splits` once, whatever the stage."""

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """Class names in the order of their indices."""

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def sizes(self) -> dict[Split, int]:
        """Number of samples per split; known after `setup`."""
        return {split: len(source) for split, source in self.splits.items()}

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that determines the samples, their order in the splits and their views; plain values."""

    def fingerprint(self) -> str:
        """16 hex digits: equal if and only if (split, index, view) means the same pixels. Independent of `seed`."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:16]

    def loader(self, split: Split) -> Loader:
        """A new loader of a split, shuffled if it is "train". Raises UserError if no batch can be made of it."""
        train = split == "train"
        if split not in self.splits:
            self.setup()
        loader = Loader(
            self.splits[split],
            self.batch_size if train else self.eval_batch_size,
            shuffle=train,
            seed=self.seed,
            trainer=self.trainer,
        )
        if train and not len(loader):
            world_size = self.trainer.world_size if self.trainer else 1
            raise UserError(
                f"{self.name} has only {len(loader.source)} training images: too few for {world_size} process(es) with "
                "2 images each; use more images (data.train_size, data.val_size) or fewer devices"
            )
        return loader

    def train_dataloader(self) -> Loader:
        """Shuffled and augmented, the same for the same (`seed`, epoch)."""
        return self.loader("train")

    def val_dataloader(self) -> Loader | list[Loader]:
        """In order, without augmentation; an empty list if nothing is held out."""
        self.setup()
        return self.loader("val") if self.sizes["val"] else []

    def test_dataloader(self) -> Loader:
        """In order, without augmentation."""
        return self.loader("test")


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
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self.augment = Augment.parse(augment)
        self.num_views = self.augment.num_views
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
            "train": ResidentImages(images[train], labels[train], self.normalize, self.augment),
            "val": ResidentImages(images[val], labels[val], self.normalize, plain),
            "test": ResidentImages(test_images, test_labels, self.normalize, plain),
        }

    def identity(self) -> dict[str, Any]:
        """See `DataModule.identity`."""
        return {
            "name": self.name,
            "normalize": self.normalize._asdict(),
            "augment": [self.augment.pad, self.augment.flip, self.augment.cutout],
            "sizes": [self.total, self.val_size, self.train_size],
            "split_seed": self.split_seed,
        }
