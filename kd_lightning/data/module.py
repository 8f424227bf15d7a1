"""Base class of all data sets of the project."""

import hashlib
import inspect
import json
import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils._pytree import tree_map

from kd_lightning.data.loader import Loader
from kd_lightning.data.subset import Subset
from kd_lightning.data.translation import Translation
from kd_lightning.types import Batch, Source
from kd_lightning.utils.checks import UserError, did_you_mean, integer

Split = Literal["train", "val", "test"]
MAX_SEED = 2**32 - 1


class DataModule(LightningDataModule):
    """Base class of all data sets: loaders of `Batch`, and the facts of the data that the rest of the project needs.

    A subclass sets `name`, implements `setup`, `classes`, `example` and `identity`, and may override what has a
    default. The constructor checks every value and does not touch the disk; `prepare_data` and `setup` may be called
    any number of times. Loaders work with a trainer or without one (then rank 0 of 1, epoch 0, on the CPU).

    Args:
        batch_size: Training samples per device and step.
        global_batch_size: Training samples per step of all devices and accumulated steps together; replaces
            `batch_size`.
        eval_batch_size: Samples per device in evaluations; None for twice `batch_size`.
        split_seed: Chooses the samples that are held out.
        seed: Decides order and, unless `view_seed` is given, augmentation.
        view_seed: Decides augmentation; None for `seed`. Runs of several seeds with one view seed are shown the same
            views, so that a teacher cache is filled once for all of them.
        unknown: Any further key.

    Raises:
        UserError: If a value is wrong or a key is unknown; the message names `data.*`.
    """

    name: str
    raw_count: int | None = None
    """Number of the raw samples that `Batch.raw` counts, those of all splits; None if batches do not say it."""
    num_views: int | None = None
    """Number of augmented views of a training sample; None if views are not numbered."""
    cheaper = "a smaller student (model.student)"
    """What to type for a training that takes less, as told before one that is long for a CPU."""

    def __init__(
        self,
        *,
        batch_size: int,
        global_batch_size: int | None = None,
        eval_batch_size: int | None = None,
        split_seed: int = 0,
        seed: int = 0,
        view_seed: int | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        for key in unknown:
            known = self._keys()
            raise UserError(f"unknown key data.{key}; it has {', '.join(known)}{did_you_mean(key, known)}")
        self.batch_size = integer("data.batch_size", batch_size, ge=1)
        if global_batch_size is not None:
            integer("data.global_batch_size", global_batch_size, ge=1)
        self.global_batch_size = global_batch_size
        if eval_batch_size is None:
            eval_batch_size = 2 * self.batch_size
        self.eval_batch_size = integer("data.eval_batch_size", eval_batch_size, ge=1)
        self.split_seed = integer("data.split_seed", split_seed, ge=0, le=MAX_SEED)
        self.seed = integer("data.seed", seed, ge=0, le=MAX_SEED)
        if view_seed is None:
            view_seed = self.seed
        self.view_seed = integer("data.view_seed", view_seed, ge=0, le=MAX_SEED)
        self.splits: dict[Split, Source] = {}

    @classmethod
    def _keys(cls) -> list[str]:
        """Return the keys of this data set: the arguments of its constructor and of those that it passes keys on to."""
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        constructors = [c.__init__ for c in cls.__mro__ if issubclass(c, DataModule) and "__init__" in vars(c)]
        keys = [p.name for c in constructors for p in inspect.signature(c).parameters.values() if p.kind in named]
        return [key for key in dict.fromkeys(keys) if key != "self"]

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Fill `splits` once, whatever the stage."""

    @property
    @abstractmethod
    def classes(self) -> list[str]:
        """Class names in the order of their indices; those of several `tasks` one after the other."""

    @property
    def own_classes(self) -> list[str]:
        """Class names of the data as it is; `WithTasks` makes others of them."""
        return self.classes

    @property
    def tasks(self) -> dict[str, int]:
        """Task → its number of classes, if the data has several; see `WithTasks`."""
        return {}

    def of(self, task: str) -> "DataModule":
        """Return the data with the labels of one task alone; `""` is the only task of ordinary data."""
        return self

    @abstractmethod
    def example(self, count: int) -> Any:
        """Return inputs (`Batch.x`) of `count` samples such as a model may be given, the same for every call."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Return everything that determines the samples, their order in the splits and their views; plain values.

        Labels that are withheld are no part of it: a teacher's answers do not depend on them.
        """

    def label_identity(self) -> Any:
        """Return what decides which training samples have a label, as a plain value; the samples are `identity`."""
        return None

    def select(self, x: Any, mask: Tensor) -> Any:
        """Return the inputs of the samples of a batch for which `mask` `[B]` is true."""
        return tree_map(lambda tensor: tensor[mask.to(tensor.device)], x)

    def raw_inputs(self, x: Any) -> Any:
        """Return inputs as they were before preprocessing, for a network that does it itself. Raises UserError."""
        raise UserError(f"the data set {self.name} has no inputs without preprocessing")

    def raw_samples(self, split: Split, order: Tensor) -> Any:
        """Return samples of a split before preprocessing, for a file that does it itself. Raises UserError."""
        raise UserError(f"the data set {self.name} has no inputs without preprocessing")

    def pixels(self, x: Any) -> Tensor | None:
        """Return inputs as pictures to look at, uint8 `[B, H, W, 3]` on the CPU; None if they cannot be drawn."""
        return None

    def texts(self, batch: Batch) -> list[str] | None:
        """Return the samples of a batch as text to read; None if they are none."""
        return None

    def model_kwargs(self) -> dict[str, Any]:
        """Return the facts of the data that a model depends on: `num_classes`, and others such as `image_size`."""
        return {"num_classes": self.num_classes}

    def preprocessing(self) -> dict[str, Any]:
        """Return how a raw sample becomes an input, as plain values for the student's card: `kind` and its values."""
        return {"kind": self.name}

    def keys_for(self, network: str) -> dict[str, Any]:
        """Return the keys of this group that a training of `network` must have, and their values, where they differ."""
        return {}

    def identity_for(self, network: str) -> dict[str, Any]:
        """Return `identity` as it is for a training of `network`, with the keys that it must have."""
        return self.identity()

    def teacher_inputs(
        self, normalize: Any, input_size: Any, key: str, network: str = "", card: Mapping[str, Any] | None = None
    ) -> tuple[Translation | None, dict[str, Any]]:
        """Return the translation of inputs for a teacher that was trained elsewhere, and its `model_kwargs`.

        Args:
            normalize: `model.teacher_normalize`.
            input_size: `model.teacher_input_size`.
            key: Suffix of these keys in messages.
            network: Name of the teacher's network.
            card: `preprocessing` of the teacher's card, if its weights have one.

        Returns:
            A translation, or None for the same inputs; and the facts of the data for the teacher's network.

        Raises:
            UserError: If the data cannot be translated so.
        """
        for name, value in (("teacher_normalize", normalize), ("teacher_input_size", input_size)):
            if value is not None:
                raise UserError(f"model.{name}{key} is for images; the data set {self.name} has none, leave it null")
        return None, self.model_kwargs()

    def epoch_views(self, epoch: int) -> Tensor | None:
        """Return the view that every training sample has in `epoch`, `[N]`, on the CPU; None if not numbered."""
        return None

    def upcoming(self, epoch: int) -> Tensor:
        """Return the positions of the training samples that this process may still show in `epoch`, in their order."""
        order = self.loader("train").order(epoch)
        if self.trainer is None:
            return order
        batches = self.trainer.num_training_batches
        if self.trainer.max_steps >= 0:
            left = (self.trainer.max_steps - self.trainer.global_step) * self.trainer.accumulate_grad_batches
            batches = min(batches, max(0, self.trainer.fit_loop.batch_idx) + left)
        return order if math.isinf(batches) else order[: int(batches) * self.batch_size]

    def share_batch(self, parts: int) -> None:
        """Divide `global_batch_size`, if given, among `parts` = processes · accumulated steps. Raises UserError."""
        if self.global_batch_size is None:
            return
        if self.global_batch_size % parts:
            raise UserError(
                f"data.global_batch_size={self.global_batch_size} cannot be divided by {parts} (devices · nodes · "
                "accumulate_grad_batches); choose a multiple of it"
            )
        self.batch_size = self.global_batch_size // parts

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def sizes(self) -> dict[Split, int]:
        """Number of samples per split, with those of unknown class; known after `setup`."""
        return {split: len(source) for split, source in self.splits.items()}

    @property
    def labelled(self) -> Tensor | None:
        """Positions `[n]` of the training samples whose class is known, None if all are; known after `setup`."""
        return None

    def drop_unlabeled(self) -> None:
        """Train on the labelled samples only, as plain training does: it learns nothing from the others."""
        if self.labelled is not None:
            self.splits["train"] = Subset(self.splits["train"], self.labelled)

    def fingerprint(self) -> str:
        """Return 16 hex digits: equal if and only if (split, index, view) means the same sample, whatever `seed`."""
        return hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()[:16]

    def samples_identity(self) -> dict[str, Any]:
        """Return the part of `identity` that determines the samples and their order, whatever is made of them."""
        return self.identity()

    def samples_fingerprint(self) -> str:
        """Return 16 hex digits: equal if and only if (split, index) means the same sample, whatever its views."""
        return hashlib.sha256(json.dumps(self.samples_identity(), sort_keys=True).encode()).hexdigest()[:16]

    def labels_fingerprint(self) -> str | None:
        """Return a fingerprint of labels that a person may correct between runs; None if the samples decide them."""
        return None

    def sample_names(self) -> list[str] | None:
        """Return a name of each training sample, such as its file below `data.root`; None if they have none."""
        return None

    def plain_train(self) -> Source:
        """Return the training split as an evaluation would show it; to be overridden if training samples vary."""
        return self.splits["train"]

    def lengths(self) -> Tensor | None:
        """Return the length of each training sample `[N]`, so that batches have similar ones; None for no matter."""
        return None

    def loader(self, split: Split) -> Loader:
        """Return a new loader of a split, shuffled if it is "train". Raises UserError if no batch can be made of it."""
        train = split == "train"
        if split not in self.splits:
            self.setup()
        loader = Loader(
            self.splits[split],
            self.batch_size if train else self.eval_batch_size,
            shuffle=train,
            seed=self.seed,
            view_seed=self.view_seed,
            trainer=self.trainer,
            lengths=self.lengths() if train else None,
        )
        if train and not len(loader):
            world_size = self.trainer.world_size if self.trainer else 1
            raise UserError(
                f"{self.name} has only {len(loader.source)} training samples: too few for {world_size} process(es) "
                "with 2 samples each; use more samples (data.train_size, data.val_size) or fewer devices"
            )
        return loader

    def train_dataloader(self) -> Loader:
        """Return the training split shuffled and augmented, the same for the same (`seed`, `view_seed`, epoch)."""
        return self.loader("train")

    def val_dataloader(self) -> Loader | list[Loader]:
        """Return the validation split in order, without augmentation; an empty list if nothing is held out."""
        self.setup()
        return self.loader("val") if self.sizes["val"] else []

    def test_dataloader(self) -> Loader:
        """Return the test split in order, without augmentation."""
        return self.loader("test")
