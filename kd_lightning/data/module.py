"""What every data set of the project offers."""

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from lightning.pytorch import LightningDataModule

from kd_lightning.data.images.normalize import Normalize
from kd_lightning.data.loader import Loader, Source
from kd_lightning.utils.checks import UserError, integer

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
        global_batch_size: int | None,
        eval_batch_size: int | None,
        split_seed: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.normalize = Normalize.parse(normalize)
        self.batch_size = integer("data.batch_size", batch_size, least=1)
        if global_batch_size is not None:
            integer("data.global_batch_size", global_batch_size, least=1)
        self.global_batch_size = global_batch_size
        if eval_batch_size is None:
            eval_batch_size = 2 * self.batch_size
        self.eval_batch_size = integer("data.eval_batch_size", eval_batch_size, least=1)
        self.split_seed = integer("data.split_seed", split_seed, least=0, most=MAX_SEED)
        self.seed = integer("data.seed", seed, least=0, most=MAX_SEED)
        self.splits: dict[Split, Source] = {}

    def share_batch(self, parts: int) -> None:
        """Divides `global_batch_size`, where given, among `parts` = processes · accumulated steps. Raises UserError."""
        if self.global_batch_size is None:
            return
        if self.global_batch_size % parts:
            raise UserError(
                f"data.global_batch_size={self.global_batch_size} cannot be divided by {parts} (devices · nodes · "
                "accumulate_grad_batches); choose a multiple of it"
            )
        self.batch_size = self.global_batch_size // parts

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
