"""Your own photos: `root/train/<class>/*`, and `val`, `test` likewise or held out from `train`."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kd_lightning.data.class_folders import SPLITS, folder_path, has_classes
from kd_lightning.data.hold_out import check_classes, hold_out
from kd_lightning.data.images.digest_cache import opened
from kd_lightning.data.images.folder import scan
from kd_lightning.data.images.labels_file import KEY, Labels, read_labels
from kd_lightning.data.images.module import ImageDataModule
from kd_lightning.data.images.normalize import NORMALIZATIONS, Normalize
from kd_lightning.data.images.photo_augment import PhotoAugment, PhotoView
from kd_lightning.data.images.photo_checks import check_repeats, read
from kd_lightning.data.images.photos import Photos
from kd_lightning.data.images.stream import StreamedImages
from kd_lightning.data.module import Split
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
            or `labels` there may be `train/*` without classes, for training without labels.
        image_size: Height and width in pixels.
        val_size: Fraction of `train` that is held out, stratified, if there is no folder `val`; 0 for none.
        test_size: Fraction of `train` that is held out, stratified, if there is no folder `test`.
        labels: JSON file that says which photos of a `train` without classes are val and test, and of what class; see
            `labels_file.Labels`.
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
        labels: str | None = None,
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
        if not isinstance(labels, str | Path | None):
            raise UserError(f"{KEY} must be a JSON file, got {labels!r}")
        self.labels_file = None if labels is None else Path(labels).expanduser()
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
        return scan(self.root, self.unlabeled_root, self.labels)

    @cached_property
    def labels(self) -> Labels | None:
        """Content of `labels_file`; None if none is given. Raises UserError if it cannot be read."""
        return None if self.labels_file is None else read_labels(self.labels_file)

    @property
    def is_unsorted(self) -> bool:
        """True if `train` is there and has no folders of classes."""
        train = self.root / "train"
        return train.is_dir() and not has_classes(train)

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
        more = self._unseen(self.unlabeled, photos, self.unlabeled_root)
        labels = self.few_labels(torch.from_numpy(photos["train"].labels), len(more))
        photos["train"] = (photos["train"] + more).relabel(labels.numpy())
        self.splits = {split: self._source(split, photos[split]) for split in SPLITS}

    def _unseen(self, pictures: Photos, photos: Mapping[Split, Photos], where: Path | None) -> Photos:
        """Return the pictures, which lie in `where`, that no evaluation sees; a line tells how many are left out."""
        if not len(pictures):
            return pictures
        copies = np.isin(pictures.digests, np.concatenate([photos["val"].digests, photos["test"].digests]))
        if copies.any():
            say(f"{where}: left out {copies.sum()} × copy of a picture in val or test")
        return pictures.select(~copies)

    def _source(self, split: Split, photos: Photos) -> StreamedImages:
        training = split == "train"
        view = PhotoView(self.image_size, self.margin, self.augment if training else None, self.normalize)
        return StreamedImages(photos, view, self.normalize, self.num_workers, keep_workers=training)

    def _split(self) -> dict[Split, Photos]:
        """Return the photos of the three splits, without copies of one in another. Raises UserError."""
        photos: dict[Split, Photos] = {"val": Photos(), **self._scanned[1]}
        where, classes = self.root / "train", self.own_classes
        if self.labels is not None:
            photos["train"] = self._unseen(photos["train"], photos, where)
            if not photos["train"]:
                raise UserError(f"{KEY} names all images of {where} for val and test; take some out, to train on them")
        check_repeats({str(split): part for split, part in photos.items()})
        sizes: dict[Split, float] = {"test": self.test_size, "val": self.val_size}
        missing = [split for split, fraction in sizes.items() if not photos.get(split) and fraction]
        if (photos["train"].labels == UNLABELED).all():
            if "test" not in missing:
                self._tell_unlabeled(photos)
                return photos
            classes = ["image"]  # by which nothing is stratified
        check_classes(_classes(photos["train"]), classes, missing, "images", where)
        for split in missing:
            train = photos["train"]
            digests, labels, size = train.digests.tolist(), _classes(train), sizes[split]
            found = hold_out(split, digests, labels, classes, size, self.split_seed, "images", where)
            photos["train"], photos[split] = (train.select(some.numpy()) for some in found)
        if self.labels is None:
            self._check_val(photos, held_out="val" in missing)
        return photos

    def _tell_unlabeled(self, photos: Mapping[Split, Photos]) -> None:
        """Tell that `train` has no labels, and what that means for validation."""
        val = "" if photos["val"] else f", and without validation, for which {self.root / 'val'} is missing"
        if self.labels is not None:
            by = f", named by {self.labels.named_by}" * bool(self.labels.named_by)
            val = f"; val ({len(photos['val'])}) and test ({len(photos['test'])}) are those of {self.labels_file}{by}"
        say(f"{self.root / 'train'} has no folders of classes: {len(photos['train'])} images without labels{val}")
        if photos["val"]:
            self._check_val(photos, held_out=False)

    def _check_val(self, photos: Mapping[Split, Photos], held_out: bool) -> None:
        """Tell before anything trains if the validation split is too small to choose by, and what would do."""
        count = len(photos["val"])
        if not 0 < count < ENOUGH:
            return
        total = len(photos["train"]) + count
        fraction = math.ceil(100 * ENOUGH / total) / 100
        if self.labels_file is not None:
            way = f"name {ENOUGH} or more in {self.labels_file}"
            way += f", or give a new file and data.val_size={fraction}" * (fraction <= MOST)
        elif not held_out:
            way = f"put {ENOUGH} or more into {self.root / 'val'}"
        elif fraction <= MOST:
            way = f"data.val_size={fraction} would hold out {ENOUGH}"
        else:
            way = f"{math.ceil(ENOUGH / MOST) - total} more in {self.root / 'train'} and data.val_size={MOST} would do"
        say(
            f"warning: val has only {count} images, and each moves the accuracy by {100 / count:.0f} %: too few to "
            f"choose a checkpoint or to check a teacher; {way}"
        )

    def sample_names(self) -> list[str] | None:
        """Return each file of the training split below `root`, or below `unlabeled_root`."""
        roots = [root for root in (self.unlabeled_root, self.root) if root is not None]
        roots.sort(key=lambda root: -len(root.parts))  # one may lie in the other
        names = []
        for path in self._train_photos().paths():
            root = next(root for root in roots if path.is_relative_to(root))
            names.append(path.relative_to(root).as_posix())
        return names

    def held_out_names(self, split: Split) -> list[str]:
        """Return the file names of `val` or `test`, of images that lie in no folders of classes."""
        source = self.splits[split]
        assert isinstance(source, StreamedImages)
        return [path.name for path in source.photos.paths()]

    def plain_train(self) -> Source:
        return self._source("val", self._train_photos())

    def _train_photos(self) -> Photos:
        train = self.splits["train"]
        assert isinstance(train, StreamedImages)
        return train.photos

    def labels_fingerprint(self) -> str | None:
        return None if self.labels is None else self.labels.fingerprint()

    def identity(self) -> dict[str, Any]:
        """Return the identity of the data set; reads every photo once."""
        identity = super().identity() | {
            "augment": asdict(self.augment),
            "image_size": self.image_size,
            "files": {split: part.fingerprint(self.root) for split, part in self._scanned[1].items()},
        }
        if self.labels is not None:  # the file says what sizes and seed of the split would decide
            return identity | {"classes": self.labels.classes, "split_seed": None}
        return identity | {"sizes": [self.val_size, self.test_size]}


def _classes(photos: Photos) -> torch.Tensor:
    """Return the class of each photo `[N]`, 0 where it is unknown."""
    return torch.from_numpy(photos.labels).clamp(min=0)
