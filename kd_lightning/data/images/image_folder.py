"""Your own photos: `root/train/<class>/*`, and `val`, `test` likewise or held out from `train`."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np
import torch

from kd_lightning.data.class_folders import SPLITS, folder_path
from kd_lightning.data.images.digest_cache import opened
from kd_lightning.data.images.folder import scan
from kd_lightning.data.images.module import ImageDataModule
from kd_lightning.data.images.normalize import NORMALIZATIONS, Normalize
from kd_lightning.data.images.photo_augment import PhotoAugment, PhotoView
from kd_lightning.data.images.photo_checks import check_repeats, read
from kd_lightning.data.images.photos import Photos
from kd_lightning.data.images.stream import StreamedImages
from kd_lightning.data.module import Split
from kd_lightning.data.split import stratified_fraction
from kd_lightning.types import UNLABELED, Source
from kd_lightning.utils.checks import UserError, integer, number
from kd_lightning.utils.console import say

ENOUGH = 20  # validation images: below, one image moves the accuracy by more than 5 %
MOST = 0.4  # fraction of the training images that are worth holding out for it


class ImageFolderDataModule(ImageDataModule):
    """Photos of any size and format.

    Trainings see a random part of a photo, evaluations its middle: the shorter side is resized to 8/7 of `image_size`
    and the center cut out. `classes` reads folder names, so it needs the disk.

    Args:
        root: Folder with `train/<class>/*` and, if they exist, `val/<class>/*` and `test/<class>/*`. With `test` there
            may be `train/*` without classes, for training without labels.
        image_size: Height and width in pixels.
        val_size: Fraction of `train` that is held out, stratified, if there is no folder `val`; 0 for none.
        test_size: Fraction of `train` that is held out, stratified, if there is no folder `test`.
        augment: Keys of `PhotoAugment`.
        num_workers: Processes that read photos; None for one per CPU core, at most 8.
        verify: Decode every file once before training, to find damaged ones.
        digest_cache: Folder where it is kept which files were read before, so that later runs and other ranks need not
            read them again; None for none.
        common: Arguments of `ImageDataModule`.

    Raises:
        UserError: From `prepare_data` and `setup`, naming the folder or file, if something is wrong with the photos.
    """

    name = "image_folder"
    margin = 8 / 7

    def __init__(
        self,
        root: str,
        *,
        image_size: int = 224,
        val_size: float = 0.1,
        test_size: float = 0.1,
        normalize: Mapping[str, Any] | Normalize = NORMALIZATIONS["imagenet"],
        augment: Mapping[str, Any] | PhotoAugment = PhotoAugment(),  # noqa: B008 - frozen
        batch_size: int = 32,
        num_workers: int | None = None,
        verify: bool = True,
        digest_cache: str | None = None,
        **common: Any,
    ) -> None:
        super().__init__(normalize=normalize, batch_size=batch_size, **common)
        self.root = folder_path("data.root", root)
        self.image_size = integer("data.image_size", image_size, ge=1)
        self.cheaper = "smaller images (data.image_size=128), " * (self.image_size > 128)
        self.cheaper += "smaller networks (model.teacher=resnet18 model.student=mobilenet_v3_small)"
        self.val_size = number("data.val_size", val_size, ge=0, le=0.9)
        self.test_size = number("data.test_size", test_size, gt=0, le=0.9)
        self.augment = PhotoAugment.parse(augment)
        if not isinstance(verify, bool):
            raise UserError(f"data.verify must be true or false, got {verify!r}")
        if num_workers is None:
            num_workers = min(8, os.cpu_count() or 1)
        self.num_workers = integer("data.num_workers", num_workers, ge=0)
        self.verify, self._are_read = verify, False
        self._digest_folder = None if digest_cache is None else folder_path("data.digest_cache", digest_cache)

    @cached_property
    def _scanned(self) -> tuple[list[str], dict[Split, Photos]]:
        return scan(self.root, self.unlabeled_root)

    @property
    def classes(self) -> list[str]:
        return self._scanned[0]

    def prepare_data(self) -> None:
        """Look at all folders and decode every photo, so that none stops a training. Raises UserError."""
        if self._are_read:
            return
        with opened(self._digest_folder, self.root) as cache:
            read([*self._scanned[1].values(), self.unlabeled], self.verify * self.image_size, cache)
        self._are_read = True

    def setup(self, stage: str | None = None) -> None:
        """Fill `splits` once, whatever the stage; lines tell what is held out. Raises UserError."""
        if self.splits:
            return
        photos = self._split()
        more = self._unseen(photos)
        labels = self.few_labels(torch.from_numpy(photos["train"].labels), len(more))
        photos["train"] = (photos["train"] + more).relabel(labels.numpy())
        self.splits = {split: self._source(split, photos[split]) for split in SPLITS}

    def _unseen(self, photos: Mapping[Split, Photos]) -> Photos:
        """Return the pictures of `unlabeled_root` that no evaluation sees; a line tells how many are left out."""
        if not len(self.unlabeled):
            return self.unlabeled
        copies = np.isin(self.unlabeled.digests, np.concatenate([photos["val"].digests, photos["test"].digests]))
        if copies.any():
            say(f"{self.unlabeled_root}: left out {copies.sum()} × copy of a picture in val or test")
        return self.unlabeled.select(~copies)

    def _source(self, split: Split, photos: Photos) -> StreamedImages:
        training = split == "train"
        view = PhotoView(self.image_size, self.margin, self.augment if training else None, self.normalize)
        return StreamedImages(photos, view, self.normalize, self.num_workers, keep_workers=training)

    def _split(self) -> dict[Split, Photos]:
        """Return the photos of the three splits, without copies of one in another. Raises UserError."""
        photos: dict[Split, Photos] = {"val": Photos(), **self._scanned[1]}
        check_repeats({str(split): part for split, part in photos.items()})
        sizes: dict[Split, float] = {"test": self.test_size, "val": self.val_size}
        if (photos["train"].labels == UNLABELED).all():
            self._tell_unlabeled(photos)
            return photos
        missing = [split for split, fraction in sizes.items() if not photos.get(split) and fraction]
        self._check_classes(photos["train"], missing)
        for split in missing:
            photos["train"], photos[split] = self._hold_out(photos["train"], split, sizes[split])
        self._check_val(photos, held_out="val" in missing)
        return photos

    def _tell_unlabeled(self, photos: Mapping[Split, Photos]) -> None:
        """Tell that `train` has no labels, and what that means for validation."""
        val = "" if photos["val"] else f", and without validation, for which {self.root / 'val'} is missing"
        say(f"{self.root / 'train'} has no folders of classes: {len(photos['train'])} images without labels{val}")
        if photos["val"]:
            self._check_val(photos, held_out=False)

    def _check_classes(self, photos: Photos, missing: list[Split]) -> None:
        """Raise UserError if a class of `train` cannot be divided into it and the `missing` splits."""
        counts = np.bincount(photos.labels, minlength=len(self.own_classes))
        needed = 1 + len(missing)
        few = [f"{name} has {count}" for name, count in zip(self.own_classes, counts, strict=True) if count < needed]
        if few:
            more = f" and {len(few) - 5} more" if len(few) > 5 else ""
            helps = "val" in missing and min(counts) == needed - 1
            without = ", or train without validation (data.val_size=0)" if helps else ""
            raise UserError(
                f"every class of {self.root / 'train'} needs {needed} or more images, one for each of "
                f"{', '.join(['train', *sorted(missing)])}: {', '.join(few[:5])}{more}; add images or remove the "
                f"class{without}"
            )

    def _hold_out(self, photos: Photos, split: Split, fraction: float) -> tuple[Photos, Photos]:
        rest, taken = stratified_fraction(torch.from_numpy(photos.labels), fraction, self.split_seed)
        train, held = photos.select(rest.numpy()), photos.select(taken.numpy())
        copies = np.isin(train.digests, held.digests)
        train = train.select(~copies)
        left = np.bincount(train.labels, minlength=len(self.own_classes))
        if not left.all():
            raise UserError(
                f"class {self.own_classes[int(left.argmin())]} of {self.root / 'train'} would have no image left to "
                f"train; add other images, make a folder {self.root / split}, or lower data.{split}_size"
            )
        say(
            f"{self.root / split} is missing: held out {len(held)} of {len(photos)} training images as {split} "
            f"(data.{split}_size={fraction}, data.split_seed={self.split_seed})"
        )
        if copies.any():
            say(f"{self.root / 'train'}: left out {copies.sum()} × copy of a picture in {split}")
        return train, held

    def _check_val(self, photos: Mapping[Split, Photos], held_out: bool) -> None:
        """Tell before anything trains if the validation split is too small to choose by, and what would do."""
        count = len(photos["val"])
        if not 0 < count < ENOUGH:
            return
        total = len(photos["train"]) + count
        fraction = math.ceil(100 * ENOUGH / total) / 100
        if not held_out:
            way = f"put {ENOUGH} or more into {self.root / 'val'}"
        elif fraction <= MOST:
            way = f"data.val_size={fraction} would hold out {ENOUGH}"
        else:
            way = f"{math.ceil(ENOUGH / MOST) - total} more in {self.root / 'train'} and data.val_size={MOST} would do"
        say(
            f"warning: val has only {count} images, and each moves the accuracy by {100 / count:.0f} %: too few to "
            f"choose a checkpoint or to check a teacher; {way}"
        )

    def sample_names(self) -> list[str]:
        """Return each file of the training split below `root`, or below `unlabeled_root`."""
        roots = [root for root in (self.root, self.unlabeled_root) if root is not None]
        names = []
        for path in self._train_photos().paths():
            root = next(root for root in roots if path.is_relative_to(root))
            names.append(path.relative_to(root).as_posix())
        return names

    def plain_train(self) -> Source:
        return self._source("val", self._train_photos())

    def _train_photos(self) -> Photos:
        train = self.splits["train"]
        assert isinstance(train, StreamedImages)
        return train.photos

    def identity(self) -> dict[str, Any]:
        """Return the identity of the data set; reads every photo once."""
        return super().identity() | {
            "augment": asdict(self.augment),
            "image_size": self.image_size,
            "sizes": [self.val_size, self.test_size],
            "files": {split: part.fingerprint(self.root) for split, part in self._scanned[1].items()},
        }
